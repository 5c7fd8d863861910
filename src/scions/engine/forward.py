"""Encoder layers over packed tokens: no padding anywhere but inside attention, and little there.

Tokens of all texts stand one after another in ``[tokens, width]``. Projections, adapters, norms and activations do
not care which text a token belongs to; only attention does (see `scions.engine.attention`). The model's own modules
are called, adapted or not, so gradients and every PEFT method work unchanged; where a bottleneck over a frozen
projection is all that is trained, `scions.engine.fused_sublayer` does the same in fewer steps.

Covers BERT, RoBERTa and XLM-R, ELECTRA, DistilBERT and MPNet; for others `supports` says no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from scions.engine.attention import PackedLayout
from scions.engine.fused_sublayer import fused_sublayer
from scions.engine.prepacked import PrepackedLayers, is_frozen


def _project(frozen: PrepackedLayers, x: torch.Tensor, *projections: nn.Module) -> torch.Tensor:
    """Queries, keys and values side by side, ``[rows, 3 * width]``; one product where all three are frozen."""
    if all(is_frozen(projection) for projection in projections):
        return frozen.of(*projections)(x)  # type: ignore[arg-type]
    return torch.cat([projection(x) for projection in projections], dim=-1)


def _dense(frozen: PrepackedLayers, x: torch.Tensor, dense: nn.Module) -> torch.Tensor:
    return frozen.of(dense)(x) if is_frozen(dense) else dense(x)  # type: ignore[arg-type]


def supports(model: Any) -> bool:
    """Whether `packed_forward` knows the architecture of a SentenceTransformer."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    return getattr(config, "model_type", None) in _LAYERS and not getattr(config, "is_decoder", False)


@contextmanager
def packed_forward(model: Any, first: int = 0) -> Iterator[None]:
    """Meanwhile ``model(features)`` takes packed texts, and gives what it gives for padded ones.

    Features: ``input_ids`` ``[tokens]``, texts one after another, and ``lengths`` ``[texts]``; where
    there is ``hidden`` ``[tokens, width]`` too, it is the input of layer ``first`` and what lies below is not run.
    The modules behind the transformer (pooling and so on) are run as they are. Frozen weights must stay as they are.
    """
    frozen = PrepackedLayers()

    def forward(features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        layout = PackedLayout.of(features["lengths"])
        known = features.get("hidden")
        start = 0 if known is None else first
        hidden = run_layers(model[0].auto_model, features["input_ids"], layout, start, hidden=known, frozen=frozen)
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
    transformer: Any,
    token_ids: torch.Tensor,
    layout: PackedLayout,
    first: int = 0,
    last: int | None = None,
    hidden: torch.Tensor | None = None,
    frozen: PrepackedLayers | None = None,
) -> torch.Tensor:
    """Hidden states ``[tokens, width]`` behind layer ``last - 1`` (None: the model's last).

    Args:
        transformer: a supported transformers model.
        token_ids: ``[tokens]``, packed as ``layout`` says.
        pack: the layout.
        first: start at this layer, from ``hidden``.
        last: stop before this layer.
        hidden: ``[tokens, width]``, the input of layer ``first``; None: the embeddings.
        frozen: what to remember of frozen weights from call to call.
    """
    layers, run = _LAYERS[transformer.config.model_type]
    x = embed(transformer, token_ids, layout) if hidden is None else hidden
    x = F.pad(x, (0, 0, 0, layout.rows - layout.tokens))
    extra = position_bias(transformer, layout)
    frozen = PrepackedLayers() if frozen is None else frozen
    for layer in layers(transformer)[first:last]:
        x = run(layer, x, layout, frozen, extra)
    return x[: layout.tokens]


def embed(transformer: Any, token_ids: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """The input of the first layer, ``[tokens, width]``."""
    # RoBERTa and MPNet count positions from the padding token's number on.
    counted = transformer.config.model_type in _POSITIONS_AFTER_PADDING
    offset = int(transformer.embeddings.padding_idx) + 1 if counted else 0
    positions = (layout.positions + offset)[None]
    x = transformer.embeddings(input_ids=token_ids[None], position_ids=positions)[0]
    project = getattr(transformer, "embeddings_project", None)
    return x if project is None else project(x)


def position_bias(transformer: Any, layout: PackedLayout) -> torch.Tensor | None:
    """MPNet's, ``[1, heads, widest, widest]``, which all its layers share; None: the model has none."""
    if transformer.config.model_type != "mpnet":
        return None
    return transformer.encoder.compute_position_bias(torch.zeros(1, layout.widest, 1, device=layout.lengths.device))


def unpack(hidden: torch.Tensor, layout: PackedLayout) -> tuple[torch.Tensor, torch.Tensor]:
    """``([texts, longest, width], [texts, longest])``: padded hidden states with their attention mask."""
    longest = int(layout.lengths.max())
    inside = torch.arange(longest, device=layout.lengths.device)
    real = inside[None] < layout.lengths[:, None]
    starts = torch.cumsum(layout.lengths, 0) - layout.lengths
    places = torch.where(real, starts[:, None] + inside[None], starts[:, None])
    return hidden[places], real.long()


def _bert_layer(layer: Any, x: torch.Tensor, layout: PackedLayout, frozen: PrepackedLayers, extra: Any) -> torch.Tensor:
    attention, out, feedforward = layer.attention.self, layer.attention.output, layer.output
    projected = _project(frozen, x, attention.query, attention.key, attention.value)
    context = layout.attend(projected, attention.num_attention_heads, attention.dropout)
    x = fused_sublayer(frozen, context, x, out.dense, out.dropout, out.LayerNorm)
    inner = layer.intermediate.intermediate_act_fn(_dense(frozen, x, layer.intermediate.dense))
    return fused_sublayer(frozen, inner, x, feedforward.dense, feedforward.dropout, feedforward.LayerNorm)


def _distilbert_layer(
    layer: Any, x: torch.Tensor, layout: PackedLayout, frozen: PrepackedLayers, extra: Any
) -> torch.Tensor:
    attention, feedforward = layer.attention, layer.ffn
    projected = _project(frozen, x, attention.q_lin, attention.k_lin, attention.v_lin)
    context = layout.attend(projected, attention.n_heads, attention.dropout)
    x = fused_sublayer(frozen, context, x, attention.out_lin, None, layer.sa_layer_norm)
    inner = feedforward.activation(_dense(frozen, x, feedforward.lin1))
    return fused_sublayer(frozen, inner, x, feedforward.lin2, feedforward.dropout, layer.output_layer_norm)


def _mpnet_layer(
    layer: Any, x: torch.Tensor, layout: PackedLayout, frozen: PrepackedLayers, extra: Any
) -> torch.Tensor:
    block, feedforward = layer.attention, layer.output
    attention = block.attn
    projected = _project(frozen, x, attention.q, attention.k, attention.v)
    context = layout.attend(projected, attention.num_attention_heads, attention.dropout, extra)
    x = fused_sublayer(frozen, context, x, attention.o, block.dropout, block.LayerNorm)
    inner = layer.intermediate.intermediate_act_fn(_dense(frozen, x, layer.intermediate.dense))
    return fused_sublayer(frozen, inner, x, feedforward.dense, feedforward.dropout, feedforward.LayerNorm)


Layers = Callable[[Any], nn.ModuleList]
_BERT: tuple[Layers, Callable] = (lambda model: model.encoder.layer, _bert_layer)
_LAYERS: dict[str, tuple[Layers, Callable]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), _BERT),
    "distilbert": (lambda model: model.transformer.layer, _distilbert_layer),
    "mpnet": (lambda model: model.encoder.layer, _mpnet_layer),
}
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "mpnet")
