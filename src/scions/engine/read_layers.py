"""Sort the tensors of an adapter's file by layer and site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scions.adapters.peft_type import FILE_PREFIX
from scions.engine.adapter_tensors import LayerTensors
from scions.engine.bottleneck import BottleneckTensors
from scions.engine.layers import BaseLayers
from scions.engine.lora import lora_layers
from scions.errors import AdapterError
from scions.store.tensor_check import check_tensors


def read_layers(
    name: str, config: Any, network: Any, base: BaseLayers, tensors: Mapping[str, Tensor]
) -> tuple[LayerTensors, ...]:
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
        return _bottleneck_layers(name, config, network, base, given)
    if kind == "LORA":
        return lora_layers(name, config, network, base, given)
    raise AdapterError(f"adapter {name!r} is of the method {kind}; adapters per row are bottlenecks or LoRA")


def _bottleneck_layers(
    name: str, config: Any, network: Any, base: BaseLayers, given: Mapping[str, Tensor]
) -> tuple[LayerTensors, ...]:
    from scions.adapters.placement import find_sites, site_width

    sites = find_sites(network, config)
    modules = dict(network.named_modules())
    expected: dict[str, tuple[int, ...]] = {}
    for site in sites.bottlenecks:
        if base.places.get(site, (0, ""))[1] not in ("attention", "feedforward"):
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

    place = (base.device, base.dtype)
    parts: list[dict[str, BottleneckTensors]] = [{} for _ in base.layers]
    for site in sites.bottlenecks:
        n, what = base.places[site]
        down, down_bias, up, up_bias = (
            given[f"{site}.bottleneck_{half}.{leaf}"].to(*place)
            for half in ("down", "up")
            for leaf in ("weight", "bias")
        )
        parts[n][what] = BottleneckTensors(
            down, down_bias, up, up_bias, activation=config.activation, reads_residual=site in sites.inputs
        )
    for norm in sites.norms:
        n, what = base.norms[norm]
        gamma, beta = (
            given[f"{norm}.bottleneck_norm.{leaf}"].to(base.device, base.norm_dtype) for leaf in ("weight", "bias")
        )
        parts[n][what] = parts[n].get(what, BottleneckTensors())._replace(gamma=gamma, beta=beta)
    return tuple(LayerTensors(part.get("attention"), part.get("feedforward")) for part in parts)
