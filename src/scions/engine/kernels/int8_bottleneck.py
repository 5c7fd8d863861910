"""Bottleneck, residual and norm in the compiled kernel, for a batch with an adapter per row.

`scions.engine.bottleneck` computes the same in PyTorch; `scions.engine.kernels.build` compiles the kernel.
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
MAX_WIDTH, MAX_RANK = 4096, 1024
WORDS = 10
_LINE = 64
_ARENA = Arena()


class _KernelTensors(NamedTuple):
    """An adapter's bottleneck and norm after one projection, in the order of ``Part`` in the source.

    ``down`` and ``up`` are int8 tiles, flat, the others float32. The rank is padded to a multiple of 32.
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
    """An adapter's bottlenecks and norms in the kernel's form, one row of its table each.

    Weights are held in 8 bits with a scale for each output: a batch of many adapters is bound by reading them.
    A rounded weight is off by at most 1/254 of the largest weight of its output.

    Attributes:
        table: ``[bottlenecks, 10]`` int64: addresses and sizes, see ``Part`` in the source.
        bytes: memory in use.
    """

    def __init__(self, parts: Sequence[BottleneckTensors | None]) -> None:
        self._allocate([None if part is None else _shapes(part) for part in parts])
        for part, stored in zip(parts, self._stored, strict=True):
            if part is not None and stored is not None:
                _fill(part, stored)

    def _allocate(self, like: Sequence[_KernelTensors | None]) -> None:
        """Allocate memory for such tensors without copying their values."""
        sizes = [tensor.nbytes for part in like if part for _, tensor in _tensors(part)]
        self._memory = _ARENA.take(sum(size + -size % _LINE for size in sizes), self)
        offset = 0
        self._stored: list[_KernelTensors | None] = []
        self.table = np.zeros((len(like), WORDS), dtype=np.int64)
        for row, part in zip(self.table, like, strict=True):
            if part is None:
                self._stored.append(None)
                continue
            placed: dict[str, Any] = {}
            for name, tensor in _tensors(part):
                placed[name] = self._memory[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                offset += tensor.nbytes + -tensor.nbytes % _LINE
            part = part._replace(**placed)
            self._stored.append(part)
            row[:8] = [0 if tensor is None else tensor.data_ptr() for tensor in part[:8]]
            row[8:] = 0 if part.down_bias is None else len(part.down_bias), part.reads_residual

    @property
    def bytes(self) -> int:
        return self._memory.nbytes

    def parts(self) -> list[BottleneckTensors | None]:
        """Return the tensors that it computes with: weights are the rounded ones, in bf16."""
        return [None if part is None else _to_bfloat16(part) for part in self._stored]

    def __getstate__(self) -> list[_KernelTensors | None]:
        # Clones, because passing a tensor to another process moves it into shared memory, away from its address.
        return [part and part._replace(**{k: v.clone() for k, v in _tensors(part)}) for part in self._stored]

    def __setstate__(self, state: list[_KernelTensors | None]) -> None:
        self._allocate(state)  # addresses are valid in one process and for its own tensors alone
        for part, stored in zip(state, self._stored, strict=True):
            for value, target in zip(part or (), stored or (), strict=True):
                if isinstance(value, Tensor) and isinstance(target, Tensor):
                    target.copy_(value)


def _tensors(part: _KernelTensors) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in part._asdict().items() if isinstance(value, Tensor))


def _shapes(part: BottleneckTensors) -> _KernelTensors:
    """Return tensors without memory, of the shapes that the kernel needs."""
    gamma, beta, up_bias = (
        None if vector is None else torch.empty(len(vector), device="meta")
        for vector in (part.gamma, part.beta, part.up_bias)
    )
    if part.down is None:
        return _KernelTensors(None, None, None, None, None, None, gamma, beta, 0, part.reads_residual)
    rank, width = part.down.shape
    padded = rank + -rank % 32
    down, up = (torch.empty(padded * width, dtype=torch.int8, device="meta") for _ in range(2))
    of_rank, of_width = torch.empty(padded, device="meta"), torch.empty(width, device="meta")
    return _KernelTensors(down, of_rank, of_rank, up, of_width, up_bias, gamma, beta, rank, part.reads_residual)


def _fill(part: BottleneckTensors, stored: _KernelTensors) -> None:
    pairs = ((stored.gamma, part.gamma), (stored.beta, part.beta), (stored.up_bias, part.up_bias))
    for target, vector in pairs:
        if target is not None and vector is not None:
            target.copy_(vector)
    if part.down is None or stored.down_bias is None:
        return
    compiled = kernels()
    assert compiled is not None  # `fits` said so
    stored.down_bias.zero_()[: stored.rank].copy_(part.down_bias)
    rank, width, padded = stored.rank, part.down.shape[1], len(stored.down_bias)
    weights: Any = (
        (part.down, stored.down, stored.down_scale, (rank, width, padded, width)),
        (part.up, stored.up, stored.up_scale, (width, rank, width, padded)),
    )
    for weight, tiles, scale, shape in weights:
        weight = weight.contiguous()
        compiled.round_weight(weight.data_ptr(), *shape, tiles.data_ptr(), scale.data_ptr())


def _to_bfloat16(part: _KernelTensors) -> BottleneckTensors:
    # Clones: the memory goes to another adapter as soon as this one is released.
    gamma, beta = (None if vector is None else vector.clone() for vector in (part.gamma, part.beta))
    norm: dict[str, Any] = {"gamma": gamma, "beta": beta, "reads_residual": part.reads_residual}
    if part.down is None or part.down_scale is None or part.down_bias is None:
        return BottleneckTensors(**norm)
    assert part.up is not None
    assert part.up_scale is not None
    down, up = _from_tiles(part.down, part.down_scale), _from_tiles(part.up, part.up_scale)
    up_bias = None if part.up_bias is None else part.up_bias.bfloat16()
    return BottleneckTensors(
        down[: part.rank], part.down_bias[: part.rank].bfloat16(), up[:, : part.rank], up_bias, **norm
    )


def _from_tiles(tiles: Tensor, scale: Tensor) -> Tensor:
    """Convert the kernel's tiles to ``[out, in]`` bf16."""
    # Of 64 numbers, even places are the first half and odd ones the second.
    tiles = tiles.view(-1, 32, 2).transpose(1, 2).reshape(len(scale) // 16, -1, 16, 16, 2)
    return (tiles.permute(0, 3, 1, 2, 4).reshape(len(scale), -1) * scale[:, None]).bfloat16()


def fits(parts: list[BottleneckTensors | None], width: int) -> bool:
    """Return whether the kernel covers these parts of a base whose layers are ``width`` wide."""
    if kernels() is None or width % 32 or width > MAX_WIDTH:
        return False
    for part in parts:
        if part is None or part.down is None:
            continue
        device, dtype = part.down.device.type, part.down.dtype
        if device != "cpu" or dtype != torch.bfloat16 or part.activation != "gelu":
            return False
        if part.down.shape[1] != width or len(part.down) > MAX_RANK:
            return False
    return True


class Int8Batch:
    """The kernel's arguments for a batch, built once and used after every projection.

    Args:
        adapters: of each span; None: the bare base.
        starts: first row of each span.
        ends: the row after its last.
        factor: ``[rows]`` float32, the strengths; None: 1.
        parts: number of bottlenecks of an adapter, two per layer.
    """

    def __init__(
        self,
        adapters: list[Int8Bottlenecks | None],
        starts: list[int],
        ends: list[int],
        factor: Tensor | None,
        parts: int,
    ) -> None:
        bare = np.zeros((parts, WORDS), dtype=np.int64)
        self._adapters = adapters  # the table holds addresses of their tensors
        self._table = np.stack([bare if adapter is None else adapter.table for adapter in adapters])
        self._spans = np.array(
            [
                (number, at, min(at + BLOCK, end))
                for number, (start, end) in enumerate(zip(starts, ends, strict=True))
                for at in range(start, end, BLOCK)
            ],
            dtype=np.int64,
        )
        self._factor = factor
        compiled = kernels()
        assert compiled is not None
        self._kernel = compiled.grouped_bottleneck

    def run(self, number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        """Compute `scions.engine.bottleneck.grouped_bottleneck` with part ``number`` of each adapter, into ``y``."""
        self._kernel(
            y.data_ptr(), residual.data_ptr(), y.data_ptr(), y.shape[1], gamma.data_ptr(), beta.data_ptr(), eps,
            self._table.ctypes.data + number * WORDS * 8, self._table.strides[0],
            self._spans.ctypes.data, len(self._spans), None if self._factor is None else self._factor.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return y
