"""Bottlenecks and norms in the compiled kernel, for a batch with an adapter a row (see `scions.encoder.compiled`).

`scions.encoder.grouped_site` does the same in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scions.encoder.compiled import kernels
from scions.encoder.grouped_site import SitePart
from scions.encoder.huge_pages import HugePages

# As in the source.
BLOCK = 32
MOST_WIDTH, MOST_RANK = 4096, 1024
WORDS = 10
_LINE = 64
_PAGES = HugePages()


class _Held(NamedTuple):
    """An adapter's part as the kernel reads it, in the order of ``Part`` in the source.

    ``down`` and ``up`` are int8 tiles (see `_rounded`), all else is float32. The rank is filled up to a multiple of 32.
    """

    down: Tensor | None
    down_scale: Tensor | None
    down_bias: Tensor | None
    up: Tensor | None
    up_scale: Tensor | None
    up_bias: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    rank: int
    reads_residual: bool


class NativeParts:
    """An adapter's parts as the kernel reads them, one row of its table a site.

    Weights are held in 8 bits with a scale for each output: reading them is what a batch of many adapters waits for.
    A rounded weight is off by at most 1/254 of its output's largest.

    Attributes:
        table: ``[sites, 10]`` int64: addresses and sizes, see ``Part`` in the source.
        bytes: memory it takes.
    """

    def __init__(self, parts: Sequence[SitePart | None]) -> None:
        self._hold([None if part is None else _laid_out(part) for part in parts])

    def _hold(self, laid_out: Sequence[_Held | None]) -> None:
        sizes = [tensor.nbytes for part in laid_out if part for _, tensor in _tensors(part)]
        self._memory = _PAGES.take(sum(size + -size % _LINE for size in sizes), self)
        self._kept = _side_by_side(laid_out, self._memory)
        self.table = np.zeros((len(laid_out), WORDS), dtype=np.int64)
        for row, part in zip(self.table, self._kept, strict=True):
            if part is not None:
                row[:8] = [0 if tensor is None else tensor.data_ptr() for tensor in part[:8]]
                row[8:] = 0 if part.down_bias is None else len(part.down_bias), part.reads_residual

    @property
    def bytes(self) -> int:
        return self._memory.nbytes

    def parts(self) -> list[SitePart | None]:
        """The parts as it computes with them: weights are the rounded ones, in bf16."""
        return [None if part is None else _taken_back(part) for part in self._kept]

    def __getstate__(self) -> list[_Held | None]:
        # Clones, because handing a tensor to another process moves it into shared memory, away from its address.
        return [part and part._replace(**{k: v.clone() for k, v in _tensors(part)}) for part in self._kept]

    def __setstate__(self, laid_out: list[_Held | None]) -> None:
        self._hold(laid_out)  # addresses hold in one process and for its tensors alone


def _tensors(part: _Held) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in part._asdict().items() if isinstance(value, Tensor))


def _laid_out(part: SitePart) -> _Held:
    gamma, beta, up_bias = (
        None if vector is None else vector.float().contiguous() for vector in (part.gamma, part.beta, part.up_bias)
    )
    if part.down is None or part.down_bias is None or part.up is None:
        return _Held(None, None, None, None, None, None, gamma, beta, 0, part.reads_residual)
    rank = len(part.down)
    more = -rank % 32
    down, down_scale = _rounded(F.pad(part.down, (0, 0, 0, more)))
    up, up_scale = _rounded(F.pad(part.up, (0, more)))
    down_bias = F.pad(part.down_bias.float(), (0, more))
    return _Held(down, down_scale, down_bias, up, up_scale, up_bias, gamma, beta, rank, part.reads_residual)


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Tiles of whole numbers from -127 to 127, and the scale of each output, ``[out]``."""
    weight = weight.float()
    scale = weight.abs().amax(dim=1) / 127
    whole = (weight / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8)
    out, width = whole.shape
    tiles = whole.view(out // 16, 16, width // 32, 16, 2).permute(0, 2, 3, 1, 4)
    # The kernel takes 64 numbers apart into the low and the high bytes of 32 pairs.
    return tiles.reshape(tiles.shape[0], -1, 2, 32).transpose(2, 3).contiguous(), scale


def _side_by_side(parts: Sequence[_Held | None], memory: Tensor) -> list[_Held | None]:
    """The same, copied into ``memory``."""
    at = 0
    result: list[_Held | None] = []
    for part in parts:
        moved: dict[str, Any] = {}
        for name, tensor in () if part is None else _tensors(part):
            moved[name] = memory[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
            at += tensor.nbytes + -tensor.nbytes % _LINE
        result.append(None if part is None else part._replace(**moved))
    return result


def _taken_back(part: _Held) -> SitePart:
    # Clones: the memory goes to another adapter as soon as this one's parts are let go.
    gamma, beta = (None if vector is None else vector.clone() for vector in (part.gamma, part.beta))
    vectors: dict[str, Any] = {"gamma": gamma, "beta": beta, "reads_residual": part.reads_residual}
    if part.down is None or part.down_scale is None or part.down_bias is None:
        return SitePart(**vectors)
    assert part.up is not None
    assert part.up_scale is not None
    down, up = _plain(part.down, part.down_scale), _plain(part.up, part.up_scale)
    up_bias = None if part.up_bias is None else part.up_bias.bfloat16()
    return SitePart(down[: part.rank], part.down_bias[: part.rank].bfloat16(), up[:, : part.rank], up_bias, **vectors)


def _plain(tiles: Tensor, scale: Tensor) -> Tensor:
    """Back from `_rounded`: ``[out, in]`` bf16."""
    whole = tiles.transpose(2, 3).reshape(len(tiles), -1, 16, 16, 2).permute(0, 3, 1, 2, 4)
    return (whole.reshape(len(scale), -1) * scale[:, None]).bfloat16()


def fits(parts: list[SitePart | None], width: int) -> bool:
    """Whether the kernel covers these parts of a base whose layers are ``width`` wide."""
    if kernels() is None or width % 32 or width > MOST_WIDTH:
        return False
    for part in parts:
        if part is None or part.down is None:
            continue
        device, dtype = part.down.device.type, part.down.dtype
        if device != "cpu" or dtype != torch.bfloat16 or part.activation != "gelu":
            return False
        if part.down.shape[1] != width or len(part.down) > MOST_RANK:
            return False
    return True


class NativeBatch:
    """The kernel's arguments for a batch, made once and used at every site.

    Args:
        parts: of each segment; None: the bare base.
        starts: first row of each segment.
        ends: row behind its last.
        factor: ``[rows]`` float32 strengths, None: 1.
        sites: of the base.
    """

    def __init__(
        self, parts: list[NativeParts | None], starts: list[int], ends: list[int], factor: Tensor | None, sites: int
    ) -> None:
        bare = np.zeros((sites, WORDS), dtype=np.int64)
        self._parts = parts
        self._table = np.stack([bare if part is None else part.table for part in parts])
        self._spans = np.array(
            [
                (number, at, min(at + BLOCK, end))
                for number, (start, end) in enumerate(zip(starts, ends, strict=True))
                for at in range(start, end, BLOCK)
            ],
            dtype=np.int64,
        )
        self._factor = factor
        found = kernels()
        assert found is not None
        self._kernel = found.grouped_site

    def site(self, number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        """As `scions.encoder.grouped_site.grouped_site`, at the base's site of this number; ``y`` is overwritten."""
        self._kernel(
            y.data_ptr(), residual.data_ptr(), y.data_ptr(), y.shape[1], gamma.data_ptr(), beta.data_ptr(), eps,
            self._table.ctypes.data + number * WORDS * 8, self._table.strides[0],
            self._spans.ctypes.data, len(self._spans), None if self._factor is None else self._factor.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return y
