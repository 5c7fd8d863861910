"""LoRA (Hu et al. 2022, arXiv 2106.09685) over packed tokens of many adapters at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class LoraTensors(NamedTuple):
    """LoRA at one projection: ``x @ down.T @ up.T`` is added to its output; ``up`` includes LoRA's scale."""

    down: Tensor
    up: Tensor


class LoraSpan(NamedTuple):
    """Neighboring tokens of one adapter with its LoRA in one layer; see `scions.engine.bottleneck.BottleneckSpan`."""

    tensors: Mapping[str, LoraTensors]
    start: int
    end: int
    factor: Tensor | None = None


def add_lora(y: Tensor, x: Tensor, spans: Sequence[LoraSpan], projections: Sequence[str]) -> None:
    """Add LoRA's output for ``x`` ``[tokens, in]`` to ``y`` ``[tokens, out]``, in place.

    Args:
        y: output of the ``projections``, side by side in equal parts.
        x: their input.
        spans: tokens with LoRA.
        projections: names of the projections, see `scions.engine.layers.PROJECTIONS`.
    """
    width = y.shape[1] // len(projections)
    for tensors, start, end, factor in spans:
        for place, name in enumerate(projections):
            pair = tensors.get(name)
            if pair is not None:
                delta = F.linear(F.linear(x[start:end], pair.down), pair.up)
                y[start:end, place * width : (place + 1) * width].add_(delta if factor is None else delta.mul_(factor))
