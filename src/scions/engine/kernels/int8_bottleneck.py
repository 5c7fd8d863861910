"""Bottlenecks and norms in the compiled kernel, for a batch with an adapter a row (see `scions.engine.kernels.build`).

`scions.engine.bottleneck` does the same in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scions.engine.bottleneck import BottleneckTensors
from scions.engine.kernels.arena import Arena
from scions.engine.kernels.build import kernels

# As in the source.
BLOCK = 32
MOST_WIDTH, MOST_RANK = 4096, 1024
WORDS = 10
_LINE = 64
_PAGES = Arena()


class _Held(NamedTuple):
    """An adapter's part as the kernel reads it, in the order of ``Part`` in the source.

    ``down`` and ``up`` are int8 tiles, flat, all else is float32. The rank is filled up to a multiple of 32.
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


class Int8Bottlenecks:
    """An adapter's parts as the kernel reads them, one row of its table a site.

    Weights are held in 8 bits with a scale for each output: reading them is what a batch of many adapters waits for.
    A rounded weight is off by at most 1/254 of its output's largest.

    Attributes:
        table: ``[sites, 10]`` int64: addresses and sizes, see ``Part`` in the source.
        bytes: memory it takes.
    """

    def __init__(self, parts: Sequence[BottleneckTensors | None]) -> None:
        self._hold([None if part is None else _empty(part) for part in parts])
        for part, held in zip(parts, self._kept, strict=True):
            if part is not None and held is not None:
                _fill(part, held)

    def _hold(self, like: Sequence[_Held | None]) -> None:
        """Take memory for such tensors; their values are not copied."""
        sizes = [tensor.nbytes for part in like if part for _, tensor in _tensors(part)]
        self._memory = _PAGES.take(sum(size + -size % _LINE for size in sizes), self)
        at = 0
        self._kept: list[_Held | None] = []
        self.table = np.zeros((len(like), WORDS), dtype=np.int64)
        for row, part in zip(self.table, like, strict=True):
            if part is None:
                self._kept.append(None)
                continue
            placed: dict[str, Any] = {}
            for name, tensor in _tensors(part):
                placed[name] = self._memory[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                at += tensor.nbytes + -tensor.nbytes % _LINE
            part = part._replace(**placed)
            self._kept.append(part)
            row[:8] = [0 if tensor is None else tensor.data_ptr() for tensor in part[:8]]
            row[8:] = 0 if part.down_bias is None else len(part.down_bias), part.reads_residual

    @property
    def bytes(self) -> int:
        return self._memory.nbytes

    def parts(self) -> list[BottleneckTensors | None]:
        """The parts as it computes with them: weights are the rounded ones, in bf16."""
        return [None if part is None else _taken_back(part) for part in self._kept]

    def __getstate__(self) -> list[_Held | None]:
        # Clones, because handing a tensor to another process moves it into shared memory, away from its address.
        return [part and part._replace(**{k: v.clone() for k, v in _tensors(part)}) for part in self._kept]

    def __setstate__(self, given: list[_Held | None]) -> None:
        self._hold(given)  # addresses hold in one process and for its tensors alone
        for part, held in zip(given, self._kept, strict=True):
            for one, other in zip(part or (), held or (), strict=True):
                if isinstance(one, Tensor) and isinstance(other, Tensor):
                    other.copy_(one)


def _tensors(part: _Held) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in part._asdict().items() if isinstance(value, Tensor))


def _empty(part: BottleneckTensors) -> _Held:
    """Tensors without memory, of the shapes the kernel wants."""
    gamma, beta, up_bias = (
        None if vector is None else torch.empty(len(vector), device="meta")
        for vector in (part.gamma, part.beta, part.up_bias)
    )
    if part.down is None:
        return _Held(None, None, None, None, None, None, gamma, beta, 0, part.reads_residual)
    rank, width = part.down.shape
    filled = rank + -rank % 32
    down, up = (torch.empty(filled * width, dtype=torch.int8, device="meta") for _ in range(2))
    of_rank, of_width = torch.empty(filled, device="meta"), torch.empty(width, device="meta")
    return _Held(down, of_rank, of_rank, up, of_width, up_bias, gamma, beta, rank, part.reads_residual)


def _fill(part: BottleneckTensors, held: _Held) -> None:
    for to, given in ((held.gamma, part.gamma), (held.beta, part.beta), (held.up_bias, part.up_bias)):
        if to is not None and given is not None:
            to.copy_(given)
    if part.down is None or held.down_bias is None:
        return
    found = kernels()
    assert found is not None  # `fits` said so
    held.down_bias.zero_()[: held.rank].copy_(part.down_bias)
    rank, width, filled = held.rank, part.down.shape[1], len(held.down_bias)
    weights: Any = (
        (part.down, held.down, held.down_scale, (rank, width, filled, width)),
        (part.up, held.up, held.up_scale, (width, rank, width, filled)),
    )
    for weight, tiles, scale, shape in weights:
        weight = weight.contiguous()
        found.round_weight(weight.data_ptr(), *shape, tiles.data_ptr(), scale.data_ptr())


def _taken_back(part: _Held) -> BottleneckTensors:
    # Clones: the memory goes to another adapter as soon as this one's parts are let go.
    gamma, beta = (None if vector is None else vector.clone() for vector in (part.gamma, part.beta))
    vectors: dict[str, Any] = {"gamma": gamma, "beta": beta, "reads_residual": part.reads_residual}
    if part.down is None or part.down_scale is None or part.down_bias is None:
        return BottleneckTensors(**vectors)
    assert part.up is not None
    assert part.up_scale is not None
    down, up = _plain(part.down, part.down_scale), _plain(part.up, part.up_scale)
    up_bias = None if part.up_bias is None else part.up_bias.bfloat16()
    return BottleneckTensors(
        down[: part.rank], part.down_bias[: part.rank].bfloat16(), up[:, : part.rank], up_bias, **vectors
    )


def _plain(tiles: Tensor, scale: Tensor) -> Tensor:
    """From the kernel's tiles to ``[out, in]`` bf16."""
    # Of 64 numbers, even places are the first half and odd ones the second.
    tiles = tiles.view(-1, 32, 2).transpose(1, 2).reshape(len(scale) // 16, -1, 16, 16, 2)
    return (tiles.permute(0, 3, 1, 2, 4).reshape(len(scale), -1) * scale[:, None]).bfloat16()


def fits(parts: list[BottleneckTensors | None], width: int) -> bool:
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


class Int8Batch:
    """The kernel's arguments for a batch, made once and used at every site.

    Args:
        parts: of each segment; None: the bare base.
        starts: first row of each segment.
        ends: row behind its last.
        factor: ``[rows]`` float32 strengths, None: 1.
        sites: of the base.
    """

    def __init__(
        self, parts: list[Int8Bottlenecks | None], starts: list[int], ends: list[int], factor: Tensor | None, sites: int
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
        self._kernel = found.grouped_bottleneck

    def site(self, number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        """As `scions.engine.bottleneck.grouped_bottleneck`, at the base's site of this number; ``y`` is overwritten."""
        self._kernel(
            y.data_ptr(), residual.data_ptr(), y.data_ptr(), y.shape[1], gamma.data_ptr(), beta.data_ptr(), eps,
            self._table.ctypes.data + number * WORDS * 8, self._table.strides[0],
            self._spans.ctypes.data, len(self._spans), None if self._factor is None else self._factor.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return y
