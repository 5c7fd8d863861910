"""Read the tensors of an adapter's file by layer, for bottlenecks and LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor

from scions.adapters.peft_type import FILE_PREFIX
from scions.adapters.placement import find_sites, site_width
from scions.engine.adapter_weights import LayerTensors
from scions.engine.bottleneck import BottleneckTensors
from scions.engine.layers import BaseLayers
from scions.engine.lora import LoraTensors
from scions.errors import AdapterError
from scions.store.tensor_check import check_tensors

# Options of LoRA that change more than `x A^T B^T * alpha / rank`.
_UNCOVERED = (
    "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices",
    "fan_in_fan_out", "lora_bias", "target_parameters",
)  # fmt: skip


def read_layers(
    name: str, config: Any, network: Any, base: BaseLayers, tensors: Mapping[str, Tensor]
) -> tuple[LayerTensors, ...]:
    """Return an adapter's tensors by layer.

    Args:
        name: the adapter's, for messages.
        config: PEFT's configuration: a `BottleneckConfig` or LoRA's.
        network: the base's transformers model.
        base: its layers; gives precision and device.
        tensors: float tensors by their names in the file.

    Raises:
        AdapterError: another method, a variant of LoRA that is more than a product of two matrices, a module that the
            packed loop cannot adapt, or a tensor that is missing, surplus or of another shape.
    """
    given = {key.removeprefix(FILE_PREFIX): tensor for key, tensor in tensors.items()}
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind == "BOTTLENECK":
        return _bottleneck_layers(name, config, network, base, given)
    if kind == "LORA":
        return _lora_layers(name, config, network, base, given)
    raise AdapterError(f"adapter {name!r} has the method {kind}; an adapter per row is a bottleneck or LoRA")


def _bottleneck_layers(
    name: str, config: Any, network: Any, base: BaseLayers, given: Mapping[str, Tensor]
) -> tuple[LayerTensors, ...]:
    sites = find_sites(network, config)
    modules = dict(network.named_modules())
    expected: dict[str, tuple[int, ...]] = {}
    for site in sites.bottlenecks:
        if base.projections.get(site, (0, ""))[1] not in ("attention", "feedforward"):
            raise AdapterError(
                f"adapter {name!r} adapts {site}; an adapter per row can adapt the output projections of attention and "
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

    parts: list[dict[str, BottleneckTensors]] = [{} for _ in base.layers]
    for site in sites.bottlenecks:
        n, projection = base.projections[site]
        down, down_bias, up, up_bias = (
            given[f"{site}.bottleneck_{half}.{leaf}"].to(base.device, base.dtype)
            for half in ("down", "up")
            for leaf in ("weight", "bias")
        )
        parts[n][projection] = BottleneckTensors(
            down, down_bias, up, up_bias, activation=config.activation, reads_residual=site in sites.inputs
        )
    for norm in sites.norms:
        n, projection = base.norms[norm]
        gamma, beta = (
            given[f"{norm}.bottleneck_norm.{leaf}"].to(base.device, base.norm_dtype) for leaf in ("weight", "bias")
        )
        parts[n][projection] = parts[n].get(projection, BottleneckTensors())._replace(gamma=gamma, beta=beta)
    return tuple(LayerTensors(part.get("attention"), part.get("feedforward")) for part in parts)


def _lora_layers(
    name: str, config: Any, network: Any, base: BaseLayers, given: Mapping[str, Tensor]
) -> tuple[LayerTensors, ...]:
    extra = [option for option in _UNCOVERED if getattr(config, option, None)]
    if getattr(config, "bias", "none") != "none":
        extra.append("bias")
    if extra:
        raise AdapterError(
            f"adapter {name!r}: LoRA with {', '.join(extra)} cannot be chosen per row; "
            "load_encoder (or plain sentence-transformers) loads it alone"
        )
    modules = dict(network.named_modules())
    targets = [path for path in modules if path and check_target_module_exists(config, path)]
    unknown = [path for path in targets if path not in base.projections]
    if unknown:
        raise AdapterError(
            f"adapter {name!r}: LoRA on {', '.join(unknown[:4])}{', …' if len(unknown) > 4 else ''} cannot be chosen "
            "per row; LoRA on the projections of layers can"
        )
    expected: dict[str, tuple[int, int]] = {}
    for path in targets:
        width_out, width_in = modules[path].weight.shape
        expected |= {f"{path}.lora_A.weight": (config.r, width_in), f"{path}.lora_B.weight": (width_out, config.r)}
    check_tensors(name, given, expected)

    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    parts: list[dict[str, LoraTensors]] = [{} for _ in base.layers]
    for path in targets:
        n, projection = base.projections[path]
        down, up = given[f"{path}.lora_A.weight"], given[f"{path}.lora_B.weight"].float() * scale
        parts[n][projection] = LoraTensors(*(tensor.to(base.device, base.dtype) for tensor in (down, up)))
    return tuple(LayerTensors(lora=part) for part in parts)
