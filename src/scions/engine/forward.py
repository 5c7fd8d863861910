"""Encoder layers over packed tokens, without padding except for a little inside attention.

Tokens of all texts are rows of one matrix ``[tokens, width]``. Projections, adapters, norms and activations treat
each token alone; only attention has to know which text it belongs to (see `scions.engine.attention`). The model's own
modules are called, adapted or not, so gradients and every PEFT method work unchanged; where a bottleneck over a frozen
projection is all that is trained, `scions.engine.fused_sublayer` computes the same in fewer steps.

`scions.adapters.architectures` lists the architectures covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scions.adapters.architectures import ARCHITECTURES
from scions.engine.attention import PackedLayout
from scions.engine.fused_sublayer import fused_sublayer
from scions.engine.layers import LayerModules, engine_architecture, layer_list
from scions.engine.prepacked import PrepackedLayers, is_frozen


def supports(model: Any) -> bool:
    """Return whether `packed_forward` covers the architecture of a SentenceTransformer."""
    network: Any = getattr(model[0], "auto_model", None)
    return engine_architecture(network) is not None and not getattr(network.config, "is_decoder", False)


@contextmanager
def packed_forward(model: Any, first: int = 0) -> Iterator[None]:
    """Let ``model(features)`` take packed texts in this context; the results are those of padded texts.

    Features: ``input_ids`` ``[tokens]``, texts one after another, and ``lengths`` ``[texts]``. With ``hidden``
    ``[tokens, width]`` too, that is the input of layer ``first``, and the layers below are skipped.
    The modules after the transformer (pooling and so on) run as they are. Frozen weights must not change meanwhile.
    """
    frozen = PrepackedLayers()

    def forward(features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        layout = PackedLayout.of(features["lengths"])
        hidden = features.get("hidden")
        start = 0 if hidden is None else first
        hidden = run_layers(model[0].auto_model, features["input_ids"], layout, start, hidden=hidden, frozen=frozen)
        output, mask = unpack(hidden, layout)
        result = {"token_embeddings": output, "attention_mask": mask}
        for module in list(model)[1:]:
            result = module(result)
        return result

    outer = model.__dict__.get("forward")
    model.forward = forward
    try:
        yield
    finally:
        if outer is None:
            del model.forward
        else:
            model.forward = outer


def run_layers(
    network: Any,
    token_ids: torch.Tensor,
    layout: PackedLayout,
    first: int = 0,
    last: int | None = None,
    hidden: torch.Tensor | None = None,
    frozen: PrepackedLayers | None = None,
) -> torch.Tensor:
    """Return the hidden states ``[tokens, width]`` after layer ``last - 1`` (None: the model's last).

    Args:
        network: a supported transformers model.
        token_ids: ``[tokens]``, packed as ``layout`` says.
        layout: how texts are packed.
        first: start at this layer, from ``hidden``.
        last: stop before this layer.
        hidden: ``[tokens, width]``, the input of layer ``first``; None: the embeddings.
        frozen: cache of prepacked weights to share between calls.
    """
    architecture = ARCHITECTURES[network.config.model_type]
    x = layout.filled(embed(network, token_ids, layout) if hidden is None else hidden)
    bias = position_bias(network, layout)
    frozen = PrepackedLayers() if frozen is None else frozen
    heads = network.config.num_attention_heads
    for modules in layer_list(architecture, network)[first:last]:
        layer = LayerModules.of(architecture, modules)
        projected = _project(frozen, x, layer.query, layer.key, layer.value)
        context = layout.attend(projected, heads, layer.attention_dropout, bias)
        x = fused_sublayer(frozen, context, x, layer.attention, layer.output_dropout, layer.attention_norm)
        inner = layer.activation(_project(frozen, x, layer.feedforward_input))
        x = fused_sublayer(frozen, inner, x, layer.feedforward, layer.feedforward_dropout, layer.feedforward_norm)
    return x[: layout.tokens]


def embed(network: Any, token_ids: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Return the input of the first layer, ``[tokens, width]``."""
    after_padding = ARCHITECTURES[network.config.model_type].positions_after_padding
    offset = int(network.embeddings.padding_idx) + 1 if after_padding else 0
    positions = (layout.positions + offset)[None]
    x = network.embeddings(input_ids=token_ids[None], position_ids=positions)[0]
    project = getattr(network, "embeddings_project", None)  # ELECTRA, where embeddings are narrower than layers
    return x if project is None else project(x)


def position_bias(network: Any, layout: PackedLayout) -> torch.Tensor | None:
    """Return the bias that all layers add to attention scores, ``[1, heads, widest, widest]``, None without one."""
    if not ARCHITECTURES[network.config.model_type].position_bias:
        return None
    return network.encoder.compute_position_bias(torch.zeros(1, layout.widest, 1, device=layout.lengths.device))


def unpack(hidden: torch.Tensor, layout: PackedLayout) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded hidden states ``[texts, longest, width]`` and their attention mask ``[texts, longest]``."""
    longest = int(layout.lengths.max())
    inside = torch.arange(longest, device=layout.lengths.device)
    real = inside[None] < layout.lengths[:, None]
    starts = torch.cumsum(layout.lengths, 0) - layout.lengths
    rows = torch.where(real, starts[:, None] + inside[None], starts[:, None])
    return hidden[rows], real.long()


def _project(frozen: PrepackedLayers, x: torch.Tensor, *projections: nn.Module) -> torch.Tensor:
    """Return the outputs of projections side by side; in one product where all of them are frozen."""
    if all(map(is_frozen, projections)):
        return frozen.of(*projections)(x)  # type: ignore[arg-type]
    outputs = [projection(x) for projection in projections]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
