"""Soft mask: scale the updates of parameters that matter for general knowledge by 1 - importance.

Source: Ke et al. 2022 (DGA, arXiv 2301.08986). The paper scales gradients; Adam divides a gradient by its running size,
which cancels most of such a factor, so here the update itself is scaled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scions.adapters.architectures import ARCHITECTURES
from scions.adapters.config import BottleneckConfig
from scions.adapters.placement import find_sites
from scions.training.preservation.importance import Importance

_PART = re.compile(r"\.(lora_A|lora_B|bottleneck_up|bottleneck_down|bottleneck_norm)\.default|\.base_layer")


def step_scales(
    transformer: Any, parameters: Mapping[str, nn.Parameter], importance: Importance
) -> list[tuple[nn.Parameter, Tensor]]:
    """Return parameters with the factors on their updates, which broadcast over them; others move freely.

    Queries, keys and values of a head, and its columns of the output projection, get ``1 - importance`` of the head: in
    full fine-tuning, and in LoRA in the factor on that side. What a bottleneck adapter writes (``up``, and the norm
    after it) gets ``1 - importance`` of the coordinate. ``importance`` is that of the bare base.
    """
    trained = {id(parameter) for parameter in parameters.values()}
    projections, written = _places(transformer, importance)
    scaled = []
    for name, parameter in transformer.named_parameters():
        if id(parameter) not in trained:
            continue
        part = "".join(_PART.findall(name))
        module = _PART.sub("", name).rpartition(".")[0]
        values, dimension = None, 0
        if part in ("bottleneck_up", "bottleneck_norm"):
            values = written.get(module)
        elif module in importance.heads and part in ("", "lora_A") and parameter.ndim == 2:
            heads, dimension = importance.heads[module], 1
            values = heads.repeat_interleave(parameter.shape[1] // len(heads))
        elif module in projections and part in ("", "lora_B"):
            values = _spread(projections[module], parameter.shape[0], transformer.config)
        if values is not None:
            shape = [1] * parameter.ndim
            shape[dimension] = -1
            scaled.append((parameter, (1 - values).view(shape).to(parameter.device)))
    return scaled


@torch.no_grad()
def scale_first_values(transformer: Any, scaled: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Scale the first values of LoRA's inner factors (``lora_A``) like their updates; the model stays the base.

    LoRA adds the product of its factors. The outer one starts at zero and is not scaled by head, so it would carry the
    unscaled first values of every head's columns into the projection.
    """
    inner = {id(parameter) for name, parameter in transformer.named_parameters() if ".lora_A." in name}
    for parameter, scale in scaled:
        if id(parameter) in inner:
            parameter.mul_(scale)


def _places(transformer: Any, importance: Importance) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return importance of heads by projection to queries, keys or values, and of coordinates by written module."""
    architecture = ARCHITECTURES[transformer.config.model_type]
    projections: dict[str, Tensor] = {}
    written = dict(importance.sites)
    for layer in find_sites(transformer, BottleneckConfig(placement="houlsby")).layers:
        output = f"{layer}.{architecture.attention}"
        block = f"{layer}.{architecture.attention.split('.')[0]}."
        for name, module in transformer.named_modules():
            plain = _PART.sub("", name)
            if plain.startswith(block) and plain != output and hasattr(module, "out_features"):
                projections[plain] = importance.heads[output]
        written[f"{layer}.{architecture.attention_norm}"] = importance.sites[output]
        written[f"{layer}.{architecture.feedforward_norm}"] = importance.sites[f"{layer}.{architecture.feedforward}"]
    return projections, written


def _spread(heads: Tensor, rows: int, config: Any) -> Tensor | None:
    """Return ``[rows]`` for a projection to queries, keys, values or all three; several heads may share a key."""
    width = getattr(config, "head_dim", None) or config.hidden_size // len(heads)
    if rows % (width * len(heads)) == 0:
        return heads.repeat_interleave(width).repeat(rows // (width * len(heads)))
    keys = rows // width
    if rows % width or len(heads) % keys:
        return None
    return heads.view(keys, -1).amax(1).repeat_interleave(width)


class ScaledSteps:
    """Take back part of each optimizer step: ``p = before + scale * (p - before)``.

    The optimizer's state stays as without a mask: it sees the true gradients.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scaled: list[tuple[nn.Parameter, Tensor]]) -> None:
        self._scaled, self._before = scaled, [parameter.detach().clone() for parameter, _ in scaled]
        optimizer.register_step_pre_hook(self._remember)
        optimizer.register_step_post_hook(self._take_back)

    @torch.no_grad()
    def _remember(self, *_: Any) -> None:
        for before, (parameter, _scale) in zip(self._before, self._scaled, strict=True):
            before.copy_(parameter)

    @torch.no_grad()
    def _take_back(self, *_: Any) -> None:
        for before, (parameter, scale) in zip(self._before, self._scaled, strict=True):
            parameter.sub_(before).mul_(scale).add_(before)
