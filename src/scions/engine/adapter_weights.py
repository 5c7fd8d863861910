"""One adapter in memory: its identity, and its tensors by layer, ready for the packed loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scions.engine.bottleneck import BottleneckTensors
from scions.engine.kernels.int8_bottleneck import Int8Bottlenecks, fits
from scions.engine.layers import BaseLayers
from scions.engine.lora import LoraTensors
from scions.store import DomainStatistics
from scions.store.registry import PublishedAdapter


class LayerTensors(NamedTuple):
    """An adapter's tensors in one layer; ``lora`` by the names of `scions.engine.layers.PROJECTIONS`."""

    attention: BottleneckTensors | None = None
    feedforward: BottleneckTensors | None = None
    lora: Mapping[str, LoraTensors] = {}

    def tensors(self) -> list[Tensor]:
        """Return all of them."""
        parts = (self.attention or (), self.feedforward or (), *self.lora.values())
        return [value for part in parts for value in part if isinstance(value, Tensor)]

    def to(self, base: BaseLayers) -> LayerTensors:
        """Return them on the base's device, norms in its precision of norms."""
        lora = {key: LoraTensors(*(tensor.to(base.device) for tensor in pair)) for key, pair in self.lora.items()}
        return LayerTensors(_moved(self.attention, base), _moved(self.feedforward, base), lora)


def _moved(part: BottleneckTensors | None, base: BaseLayers) -> BottleneckTensors | None:
    if part is None:
        return None
    changed: dict[str, Any] = {
        key: value.to(base.device, base.norm_dtype if key in ("gamma", "beta") else value.dtype)
        for key, value in part._asdict().items()
        if isinstance(value, Tensor)
    }
    return part._replace(**changed)


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """A loaded adapter. It never changes: a caller that holds it can go on computing with it.

    Attributes:
        name: its name in this encoder.
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
        domain: statistics of its training texts, for routing; None: unknown.
        layers: its tensors, one entry a layer (empty where the PEFT path runs); without the bottlenecks that
            ``native`` holds.
        native: the bottlenecks in the compiled kernel's form; None where it does not cover them.
        shared: the PEFT path's form of the adapter.
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

    @classmethod
    def of(cls, adapter: PublishedAdapter, **fields: Any) -> AdapterWeights:
        """Return ``adapter`` with the fields that depend on how the base computes with it."""
        manifest = adapter.manifest
        return cls(
            name=adapter.name,
            version=adapter.fingerprint[:12],
            folder=adapter.folder,
            fingerprint=adapter.fingerprint,
            method=manifest.method,
            rank=manifest.rank,
            base=manifest.base.weights_sha256,
            max_length=manifest.max_length or None,
            prompts=dict(manifest.prompts),
            query_side=manifest.query_side,
            domain=manifest.domain,
            **fields,
        )

    @property
    def has_lora(self) -> bool:
        """Whether any layer has LoRA."""
        return any(layer.lora for layer in self.layers)

    def bottlenecks(self) -> list[BottleneckTensors | None]:
        """Return the bottlenecks, two a layer: after attention and after the feed-forward block."""
        if self.native is not None:
            return self.native.parts()
        return _bottlenecks(self.layers)

    def to(self, base: BaseLayers) -> AdapterWeights:
        """Return a copy with its tensors on the device of ``base``."""
        parts = self.bottlenecks()
        layers = (
            layer._replace(attention=parts[2 * n], feedforward=parts[2 * n + 1]) for n, layer in enumerate(self.layers)
        )
        return replace(self, **tensor_fields([layer.to(base) for layer in layers], base))


def tensor_fields(layers: Sequence[LayerTensors], base: BaseLayers) -> dict[str, Any]:
    """Return the fields of `AdapterWeights` that hold ``layers``, in the compiled kernel's form where possible."""
    parts = _bottlenecks(layers)
    native = None
    if base.dtype == torch.bfloat16 and any(parts) and fits(parts, base.width):
        native = Int8Bottlenecks(parts)
        layers = [layer._replace(attention=None, feedforward=None) for layer in layers]
    size = sum(tensor.nbytes for layer in layers for tensor in layer.tensors())
    return {"layers": tuple(layers), "native": native, "bytes": size + (0 if native is None else native.bytes)}


def _bottlenecks(layers: Sequence[LayerTensors]) -> list[BottleneckTensors | None]:
    return [part for layer in layers for part in (layer.attention, layer.feedforward)]
