"""One adapter in memory: who it is, and its tensors filed by layer and site, ready for the packed loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scions.encoder.inject import FILE_PREFIX, check_tensors
from scions.engine.bottleneck import BottleneckTensors
from scions.engine.kernels.int8_bottleneck import Int8Bottlenecks, fits
from scions.engine.layers import Stack
from scions.errors import AdapterError
from scions.store import DomainStatistics


class LoraTensors(NamedTuple):
    """LoRA at one projection: ``x @ down.T @ up.T`` is added to its output. ``up`` holds LoRA's scale too."""

    down: Tensor
    up: Tensor


class LayerPart(NamedTuple):
    """What an adapter does in one layer; ``low_rank`` by the names of `scions.engine.layers.PROJECTIONS`."""

    attention: BottleneckTensors | None = None
    feedforward: BottleneckTensors | None = None
    low_rank: Mapping[str, LoraTensors] = {}


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
    layers: tuple[LayerPart, ...] = field(default=(), repr=False)
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

    def to(self, stack: Stack) -> AdapterWeights:
        """The same with its tensors where ``stack`` is."""
        sites = self.sites()
        layers = tuple(
            _moved(layer._replace(attention=sites[2 * n], feedforward=sites[2 * n + 1]), stack)
            for n, layer in enumerate(self.layers)
        )
        return replace(self, **in_memory(layers, stack))


def file_layers(
    name: str, config: Any, network: Any, stack: Stack, tensors: Mapping[str, Tensor]
) -> tuple[LayerPart, ...]:
    """An adapter's tensors, as its file names them, by layer.

    Args:
        name: the adapter's, for messages.
        config: PEFT's configuration: a `BottleneckConfig` or LoRA's.
        network: the base's transformers model.
        stack: its layers; gives precision and device.
        tensors: float tensors by their names in the file.

    Raises:
        AdapterError: the method is another one, a tensor is missing, surplus or of another shape, or sits where the
            packed loop has no place for it.
    """
    given = {key.removeprefix(FILE_PREFIX): tensor for key, tensor in tensors.items()}
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind == "BOTTLENECK":
        return _bottleneck_layers(name, config, network, stack, given)
    if kind == "LORA":
        from scions.engine.lora import lora_layers

        return lora_layers(name, config, network, stack, given)
    raise AdapterError(f"adapter {name!r} is of the method {kind}; adapters per row are bottlenecks or LoRA")


def in_memory(layers: Sequence[LayerPart], stack: Stack) -> dict[str, Any]:
    """What an `AdapterWeights` holds of these layers: in the compiled kernel's form where that covers them."""
    parts = [part for layer in layers for part in (layer.attention, layer.feedforward)]
    native = None
    if stack.dtype == torch.bfloat16 and any(parts) and fits(parts, stack.width):
        native = Int8Bottlenecks(parts)
        layers = [layer._replace(attention=None, feedforward=None) for layer in layers]
    size = sum(tensor.nbytes for layer in layers for tensor in _tensors(layer))
    return {"layers": tuple(layers), "native": native, "bytes": size + (0 if native is None else native.bytes)}


def _bottleneck_layers(
    name: str, config: Any, network: Any, stack: Stack, given: Mapping[str, Tensor]
) -> tuple[LayerPart, ...]:
    from scions.adapters.placement import find_sites, site_width

    sites = find_sites(network, config)
    modules = dict(network.named_modules())
    expected: dict[str, tuple[int, ...]] = {}
    for site in sites.bottlenecks:
        if stack.places.get(site, (0, ""))[1] not in ("attention", "feedforward"):
            raise AdapterError(
                f"adapter {name!r} sits at {site}; per row it can sit behind the output projections of attention and "
                "feed-forward block only"
            )
        width_in, width_out = site_width(modules, sites, site)
        expected |= {
            f"{site}.bottleneck_down.weight": (config.rank, width_in),
            f"{site}.bottleneck_down.bias": (config.rank,),
            f"{site}.bottleneck_up.weight": (width_out, config.rank),
            f"{site}.bottleneck_up.bias": (width_out,),
        }
    width = int(network.config.hidden_size)
    for norm in sites.norms:
        expected |= {f"{norm}.bottleneck_norm.weight": (width,), f"{norm}.bottleneck_norm.bias": (width,)}
    check_tensors(name, given, expected)

    place = (stack.device, stack.dtype)
    parts: list[dict[str, BottleneckTensors]] = [{} for _ in stack.layers]
    for site in sites.bottlenecks:
        n, what = stack.places[site]
        down, down_bias, up, up_bias = (
            given[f"{site}.bottleneck_{half}.{leaf}"].to(*place)
            for half in ("down", "up")
            for leaf in ("weight", "bias")
        )
        parts[n][what] = BottleneckTensors(
            down, down_bias, up, up_bias, activation=config.activation, reads_residual=site in sites.inputs
        )
    for norm in sites.norms:
        n, what = stack.norms[norm]
        gamma, beta = (
            given[f"{norm}.bottleneck_norm.{leaf}"].to(stack.device, stack.norm_dtype) for leaf in ("weight", "bias")
        )
        parts[n][what] = parts[n].get(what, BottleneckTensors())._replace(gamma=gamma, beta=beta)
    return tuple(LayerPart(part.get("attention"), part.get("feedforward")) for part in parts)


def _tensors(layer: LayerPart) -> list[Tensor]:
    sites = [value for part in layer[:2] for value in part or () if isinstance(value, Tensor)]
    return sites + [tensor for pair in layer.low_rank.values() for tensor in pair]


def _moved(layer: LayerPart, stack: Stack) -> LayerPart:
    device = stack.device

    def site(part: BottleneckTensors | None) -> BottleneckTensors | None:
        if part is None:
            return None
        changed: Any = {key: v.to(device) for key, v in part._asdict().items() if isinstance(v, Tensor)}
        placed = part._replace(**changed)
        if placed.gamma is None or placed.beta is None:
            return placed
        return placed._replace(gamma=placed.gamma.to(stack.norm_dtype), beta=placed.beta.to(stack.norm_dtype))

    low_rank = {key: LoraTensors(pair.down.to(device), pair.up.to(device)) for key, pair in layer.low_rank.items()}
    return LayerPart(site(layer.attention), site(layer.feedforward), low_rank)
