"""LoRA (Hu et al. 2022, arXiv 2106.09685) in the packed loop: read from a file, and added per span of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from scions.engine.adapter_tensors import LayerTensors, LoraTensors
from scions.engine.layers import BaseLayers
from scions.errors import AdapterError
from scions.store.tensor_check import check_tensors

# What these change goes beyond `x A^T B^T * alpha / rank`.
_UNCOVERED = (
    "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices",
    "fan_in_fan_out", "lora_bias", "target_parameters",
)  # fmt: skip


def lora_layers(
    name: str, config: Any, network: Any, base: BaseLayers, given: Mapping[str, Tensor]
) -> tuple[LayerTensors, ...]:
    """LoRA's tensors by layer; see `scions.engine.read_layers.read_layers`.

    Raises:
        AdapterError: a variant that is more than a product of two matrices, a target that is no projection of a
            layer, or tensors that do not fit.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

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
    unknown = [path for path in targets if path not in base.places]
    if unknown:
        raise AdapterError(
            f"adapter {name!r}: LoRA on {', '.join(unknown[:4])}{', …' if len(unknown) > 4 else ''} cannot be chosen "
            "per row; the layers' own projections can"
        )
    expected: dict[str, tuple[int, int]] = {}
    for path in targets:
        width_out, width_in = modules[path].weight.shape
        expected[f"{path}.lora_A.weight"] = (config.r, width_in)
        expected[f"{path}.lora_B.weight"] = (width_out, config.r)
    check_tensors(name, given, expected)

    place = (base.device, base.dtype)
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    parts: list[dict[str, LoraTensors]] = [{} for _ in base.layers]
    for path in targets:
        n, what = base.places[path]
        down, up = given[f"{path}.lora_A.weight"], given[f"{path}.lora_B.weight"].float() * scale
        parts[n][what] = LoraTensors(down.to(*place), up.to(*place))
    return tuple(LayerTensors(low_rank=part) for part in parts)


def add_lora(
    y: Tensor, x: Tensor, spans: Sequence[tuple[LayerTensors, int, int, Tensor | None]], what: Sequence[str]
) -> None:
    """Add to ``y`` ``[tokens, out]`` what LoRA makes of ``x`` ``[tokens, in]``, in place.

    Args:
        y: output of the projections ``what``, side by side in equal parts.
        x: their input.
        spans: of tokens with LoRA: its part in this layer, first token, end, and factor ``[tokens of the span, 1]``.
        what: names of the projections.
    """
    width = y.shape[1] // len(what)
    for part, start, end, factor in spans:
        for place, name in enumerate(what):
            pair = part.low_rank.get(name)
            if pair is not None:
                delta = F.linear(F.linear(x[start:end], pair.down), pair.up)
                mine = y[start:end, place * width : (place + 1) * width]
                mine.add_(delta if factor is None else delta.mul_(factor))
