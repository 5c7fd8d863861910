"""One adapter in memory: who it is, and its tensors filed by layer and site, ready for the packed loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from scions.engine.adapter_tensors import LayerTensors, moved, tensors_of
from scions.engine.bottleneck import BottleneckTensors
from scions.engine.kernels.int8_bottleneck import Int8Bottlenecks, fits
from scions.engine.layers import BaseLayers
from scions.store import DomainStatistics


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """An adapter as it was loaded. Nothing in it ever changes: who holds it can go on computing with it.

    Attributes:
        name: what it is called here.
        version: the first 12 hex digits of ``fingerprint``.
        folder: where it was read from.
        fingerprint: `scions.store.adapter_fingerprint` of what was read.
        method: ``houlsby``, ``pfeiffer``, ``parallel`` or ``lora``.
        rank: width of the bottleneck, or LoRA's rank.
        bytes: memory its tensors take here.
        base: `scions.store.base_fingerprint` of the base it belongs to.
        max_length: tokens of a text it was trained with; None: unknown.
        prompts: those it was trained with.
        query_side: only queries pass through it; documents are the base's.
        domain: of its training texts, by which it can be chosen; None: unknown.
        layers: its tensors, one entry a layer (empty where the PEFT path runs);
            sites are left out where ``native`` has them.
        native: the compiled kernel's form of ``layers``; None where it does not cover them.
        graft: the PEFT path's own form of it.
    """

    name: str
    version: str
    folder: Path | None
    fingerprint: str
    method: str
    rank: int | None
    bytes: int
    base: str
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    query_side: bool = False
    domain: DomainStatistics | None = field(default=None, repr=False)
    layers: tuple[LayerTensors, ...] = field(default=(), repr=False)
    native: Int8Bottlenecks | None = field(default=None, repr=False)
    shared: Any = field(default=None, repr=False)

    @property
    def has_low_rank(self) -> bool:
        """Whether any layer has LoRA in it."""
        return any(layer.low_rank for layer in self.layers)

    def sites(self) -> list[BottleneckTensors | None]:
        """Of all layers, two a layer: behind attention and behind the feed-forward block."""
        if self.native is not None:
            return self.native.parts()
        return [part for layer in self.layers for part in (layer.attention, layer.feedforward)]

    def to(self, base: BaseLayers) -> AdapterWeights:
        """The same with its tensors where ``base`` is."""
        sites = self.sites()
        layers = tuple(
            moved(layer._replace(attention=sites[2 * n], feedforward=sites[2 * n + 1]), base)
            for n, layer in enumerate(self.layers)
        )
        return replace(self, **tensor_fields(layers, base))


def tensor_fields(layers: Sequence[LayerTensors], base: BaseLayers) -> dict[str, Any]:
    """What an `AdapterWeights` holds of these layers: in the compiled kernel's form where that covers them."""
    parts = [part for layer in layers for part in (layer.attention, layer.feedforward)]
    native = None
    if base.dtype == torch.bfloat16 and any(parts) and fits(parts, base.width):
        native = Int8Bottlenecks(parts)
        layers = [layer._replace(attention=None, feedforward=None) for layer in layers]
    size = sum(tensor.nbytes for layer in layers for tensor in tensors_of(layer))
    return {"layers": tuple(layers), "native": native, "bytes": size + (0 if native is None else native.bytes)}
