"""The tensors of one adapter in one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from scions.engine.bottleneck import BottleneckTensors
from scions.engine.layers import BaseLayers


class LoraTensors(NamedTuple):
    """LoRA at one projection: ``x @ down.T @ up.T`` is added to its output. ``up`` holds LoRA's scale too."""

    down: Tensor
    up: Tensor


class LayerTensors(NamedTuple):
    """What an adapter does in one layer; ``low_rank`` by the names of `scions.engine.layers.PROJECTIONS`."""

    attention: BottleneckTensors | None = None
    feedforward: BottleneckTensors | None = None
    low_rank: Mapping[str, LoraTensors] = {}


def tensors_of(layer: LayerTensors) -> list[Tensor]:
    sites = [value for part in layer[:2] for value in part or () if isinstance(value, Tensor)]
    return sites + [tensor for pair in layer.low_rank.values() for tensor in pair]


def moved(layer: LayerTensors, base: BaseLayers) -> LayerTensors:
    device = base.device

    def site(part: BottleneckTensors | None) -> BottleneckTensors | None:
        if part is None:
            return None
        changed: Any = {key: v.to(device) for key, v in part._asdict().items() if isinstance(v, Tensor)}
        placed = part._replace(**changed)
        if placed.gamma is None or placed.beta is None:
            return placed
        return placed._replace(gamma=placed.gamma.to(base.norm_dtype), beta=placed.beta.to(base.norm_dtype))

    low_rank = {key: LoraTensors(pair.down.to(device), pair.up.to(device)) for key, pair in layer.low_rank.items()}
    return LayerTensors(site(layer.attention), site(layer.feedforward), low_rank)
