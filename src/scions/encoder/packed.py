"""Encoder layers over packed tokens: no padding anywhere but inside attention, and little there.

Tokens of all texts stand one after another in ``[tokens, width]``. Projections, adapters, norms and activations do
not care which text a token belongs to; only attention is run on groups of texts of like length. The model's own
modules are called, adapted or not, so gradients and every PEFT method work unchanged.

Covers BERT, RoBERTa and XLM-R, ELECTRA, DistilBERT and MPNet; for others `supports` says no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Texts are attended together while the shortest has at least this share of the longest's tokens.
LEAST_FILL = 0.6
LEAST_GROUP = 16


@dataclass
class Pack:
    """How packed tokens map to texts.

    Attributes:
        lengths: tokens of each text, longest first.
        positions: ``[tokens]`` place of a token within its text.
        groups: for each group of texts, ``(padded, mask, flat)``: the packed token at every padded place
            ``[texts, longest]``, True where that is a real token ``[texts, 1, 1, longest]`` (None where all are),
            and the places of the group's tokens in the padded layout.
    """

    lengths: torch.Tensor
    positions: torch.Tensor
    groups: list[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]

    @classmethod
    def of(cls, lengths: torch.Tensor) -> Pack:
        """Pack texts of ``lengths``, which must not increase."""
        starts = torch.cumsum(lengths, 0) - lengths
        device = lengths.device
        positions = torch.arange(int(lengths.sum()), device=device) - torch.repeat_interleave(starts, lengths)
        groups, first = [], 0
        sizes = lengths.tolist()
        while first < len(sizes):
            last = first + 1
            while last < len(sizes) and (last - first < LEAST_GROUP or sizes[last] >= LEAST_FILL * sizes[first]):
                last += 1
            inside = torch.arange(sizes[first], device=device)
            real = inside[None] < lengths[first:last, None]
            # A padded place repeats the text's first token: any real number will do, the mask hides it.
            padded = torch.where(real, starts[first:last, None] + inside[None], starts[first:last, None])
            mask = None if bool(real.all()) else real[:, None, None, :]
            groups.append((padded, mask, real.flatten().nonzero().squeeze(1)))
            first = last
        return cls(lengths, positions, groups)

    def attend(self, projected: torch.Tensor, heads: int, dropout: nn.Module, bias: Any = None) -> torch.Tensor:
        """Self-attention within each text.

        Args:
            projected: ``[tokens, 3 * width]``: queries, keys, values.
            heads: number of heads.
            dropout: the layer's own for attention probabilities.
            bias: added to the scores, ``[1, heads, longest, longest]``, or None.

        Returns:
            ``[tokens, width]``.
        """
        width = projected.shape[1] // 3
        dropped = float(dropout.p) if dropout.training else 0.0  # type: ignore[arg-type]
        results = []
        for padded, mask, flat in self.groups:
            texts, longest = padded.shape
            split = _Pad.apply(projected, padded.flatten(), flat).view(texts, longest, 3, heads, width // heads)
            query, key, value = split.permute(2, 0, 3, 1, 4)
            attention_mask: Any = mask
            if bias is not None:
                attention_mask = bias[:, :, :longest, :longest].to(query.dtype)
                if mask is not None:
                    attention_mask = attention_mask.masked_fill(~mask, float("-inf"))
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropped)
            results.append(_Unpad.apply(context.transpose(1, 2).reshape(texts * longest, width), flat))
        return torch.cat(results) if len(results) > 1 else results[0]


class _Pad(torch.autograd.Function):
    """Packed tokens of a group at their padded places. Indexing's own gradient would add up token by token."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, padded: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(padded, flat)
        ctx.tokens = len(x)
        return x.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        padded, flat = ctx.saved_tensors
        # What flows back at padding is zero: its keys are masked and its queries' results dropped.
        real = gradients[0].index_select(0, flat)
        if len(real) == ctx.tokens:
            return real, None, None
        whole = real.new_zeros(ctx.tokens, real.shape[1])
        return whole.index_copy_(0, padded[flat], real), None, None


class _Unpad(torch.autograd.Function):
    """The real tokens of a padded layout."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(flat)
        ctx.places = len(x)
        return x.index_select(0, flat)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (flat,) = ctx.saved_tensors
        whole = gradients[0].new_zeros(ctx.places, gradients[0].shape[1])
        return whole.index_copy_(0, flat, gradients[0]), None


def _project(x: torch.Tensor, *projections: nn.Module) -> torch.Tensor:
    """Queries, keys and values side by side, ``[tokens, 3 * width]``; one product where all three are frozen."""
    if all(type(p) is nn.Linear and p.bias is not None and not p.weight.requires_grad for p in projections):
        # Joining the weights anew in every pass costs far less than two more products and their gradients.
        weight = torch.cat([p.weight for p in projections])  # type: ignore[misc]
        return F.linear(x, weight, torch.cat([p.bias for p in projections]))  # type: ignore[misc]
    return torch.cat([p(x) for p in projections], dim=-1)


def supports(model: Any) -> bool:
    """Whether `packed_forward` knows the architecture of a SentenceTransformer."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    return getattr(config, "model_type", None) in _LAYERS and not getattr(config, "is_decoder", False)


@contextmanager
def packed_forward(model: Any, first: int = 0) -> Iterator[None]:
    """Meanwhile ``model(features)`` takes packed texts, and gives what it gives for padded ones.

    Features: ``input_ids`` ``[tokens]``, texts one after another, longest first, and ``lengths`` ``[texts]``; where
    there is ``hidden`` ``[tokens, width]`` too, it is the input of layer ``first`` and what lies below is not run.
    The modules behind the transformer (pooling and so on) are run as they are.
    """

    def forward(features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        pack = Pack.of(features["lengths"])
        known = features.get("hidden")
        start = 0 if known is None else first
        hidden = run_layers(model[0].auto_model, features["input_ids"], pack, start, hidden=known)
        output, mask = unpack(hidden, pack)
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
    pack: Pack,
    first: int = 0,
    last: int | None = None,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states ``[tokens, width]`` behind layer ``last - 1`` (None: the model's last).

    Args:
        transformer: a supported transformers model.
        token_ids: ``[tokens]``, packed as ``pack`` says.
        pack: the layout.
        first: start at this layer, from ``hidden``.
        last: stop before this layer.
        hidden: ``[tokens, width]``, the input of layer ``first``; None: the embeddings.
    """
    layers, run = _LAYERS[transformer.config.model_type]
    x = embed(transformer, token_ids, pack) if hidden is None else hidden
    extra = _mpnet_bias(transformer, pack) if transformer.config.model_type == "mpnet" else None
    for layer in layers(transformer)[first:last]:
        x = run(layer, x, pack, extra)
    return x


def embed(transformer: Any, token_ids: torch.Tensor, pack: Pack) -> torch.Tensor:
    """The input of the first layer, ``[tokens, width]``."""
    # RoBERTa and MPNet count positions from the padding token's number on.
    counted = transformer.config.model_type in _POSITIONS_AFTER_PADDING
    offset = int(transformer.embeddings.padding_idx) + 1 if counted else 0
    positions = (pack.positions + offset)[None]
    x = transformer.embeddings(input_ids=token_ids[None], position_ids=positions)[0]
    project = getattr(transformer, "embeddings_project", None)
    return x if project is None else project(x)


def unpack(hidden: torch.Tensor, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """``([texts, longest, width], [texts, longest])``: padded hidden states with their attention mask."""
    longest = int(pack.lengths[0])
    inside = torch.arange(longest, device=pack.lengths.device)
    real = inside[None] < pack.lengths[:, None]
    starts = torch.cumsum(pack.lengths, 0) - pack.lengths
    places = torch.where(real, starts[:, None] + inside[None], starts[:, None])
    return hidden[places], real.long()


def _bert_layer(layer: Any, x: torch.Tensor, pack: Pack, extra: Any) -> torch.Tensor:
    attention, out, feedforward = layer.attention.self, layer.attention.output, layer.output
    projected = _project(x, attention.query, attention.key, attention.value)
    context = pack.attend(projected, attention.num_attention_heads, attention.dropout)
    x = out.LayerNorm(out.dropout(out.dense(context)) + x)
    return feedforward.LayerNorm(feedforward.dropout(feedforward.dense(layer.intermediate(x))) + x)


def _distilbert_layer(layer: Any, x: torch.Tensor, pack: Pack, extra: Any) -> torch.Tensor:
    attention, feedforward = layer.attention, layer.ffn
    projected = _project(x, attention.q_lin, attention.k_lin, attention.v_lin)
    context = pack.attend(projected, attention.n_heads, attention.dropout)
    x = layer.sa_layer_norm(attention.out_lin(context) + x)
    inner = feedforward.activation(feedforward.lin1(x))
    return layer.output_layer_norm(feedforward.dropout(feedforward.lin2(inner)) + x)


def _mpnet_layer(layer: Any, x: torch.Tensor, pack: Pack, extra: Any) -> torch.Tensor:
    block, feedforward = layer.attention, layer.output
    attention = block.attn
    projected = _project(x, attention.q, attention.k, attention.v)
    context = pack.attend(projected, attention.num_attention_heads, attention.dropout, extra)
    x = block.LayerNorm(block.dropout(attention.o(context)) + x)
    return feedforward.LayerNorm(feedforward.dropout(feedforward.dense(layer.intermediate(x))) + x)


def _mpnet_bias(transformer: Any, pack: Pack) -> torch.Tensor:
    longest = torch.zeros(1, int(pack.lengths[0]), 1, device=pack.lengths.device)
    return transformer.encoder.compute_position_bias(longest)


Layers = Callable[[Any], nn.ModuleList]
_BERT: tuple[Layers, Callable] = (lambda model: model.encoder.layer, _bert_layer)
_LAYERS: dict[str, tuple[Layers, Callable]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), _BERT),
    "distilbert": (lambda model: model.transformer.layer, _distilbert_layer),
    "mpnet": (lambda model: model.encoder.layer, _mpnet_layer),
}
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "mpnet")
