"""The packed loop with an adapter a row: rows of one adapter stand together, and are one span of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scions.engine.adapter_weights import AdapterWeights
from scions.engine.attention import Pack
from scions.engine.bottleneck import Span, grouped_bottleneck
from scions.engine.forward import embed, position_bias
from scions.engine.kernels.int8_bottleneck import Int8Batch, fits
from scions.engine.layers import Stack
from scions.engine.lora import add_lora

_NO_DROPOUT = nn.Dropout(0.0).eval()


class Segment(NamedTuple):
    """Neighbouring tokens of one adapter (None: of the bare base).

    ``factor`` ``[end - start, 1]`` float32: the strength at each token; None: 1.
    """

    adapter: AdapterWeights | None
    start: int
    end: int
    factor: Tensor | None = None


def order_rows(adapters: Sequence[AdapterWeights | None]) -> np.ndarray:
    """Numbers of the rows, those of one adapter together, the bare base's first."""
    number: dict[int, int] = {}
    keys = [-1 if adapter is None else number.setdefault(id(adapter), len(number)) for adapter in adapters]
    return np.argsort(keys, kind="stable")


def segments_of(
    adapters: Sequence[AdapterWeights | None], strengths: Sequence[float], lengths: np.ndarray, device: torch.device
) -> list[Segment]:
    """The segments of rows that `order_rows` has ordered; ``lengths`` ``[rows]`` are their tokens."""
    segments: list[Segment] = []
    ends = np.cumsum(lengths).tolist()
    first = 0
    while first < len(adapters):
        last = first + 1
        while last < len(adapters) and adapters[last] is adapters[first]:
            last += 1
        factor = None
        if adapters[first] is not None and any(strength != 1 for strength in strengths[first:last]):
            column = np.repeat(np.array(strengths[first:last], dtype=np.float32), lengths[first:last])
            factor = torch.from_numpy(column)[:, None].to(device)
        segments.append(Segment(adapters[first], ends[first - 1] if first else 0, ends[last - 1], factor))
        first = last
    return segments


def run_rows(network: Any, stack: Stack, token_ids: Tensor, pack: Pack, segments: Sequence[Segment]) -> Tensor:
    """Hidden states ``[tokens, width]`` behind the last layer, in the stack's precision.

    Args:
        network: the transformers model, for its embeddings.
        stack: its layers.
        token_ids: ``[tokens]``, packed as ``pack`` says.
        pack: the layout.
        segments: cover all tokens, in order.
    """
    x = F.pad(embed(network, token_ids, pack).to(stack.dtype), (0, 0, 0, pack.rows - pack.tokens))
    bias = position_bias(network, pack)
    segments = [*segments, Segment(None, pack.tokens, pack.rows)] if pack.rows > pack.tokens else segments
    low_rank = [segment for segment in segments if segment.adapter is not None and segment.adapter.has_low_rank]
    site = _native_site(stack, segments) or _plain_site(segments)
    for n, layer in enumerate(stack.layers):
        added = [(s.adapter.layers[n], *s[1:]) for s in low_rank if s.adapter is not None]
        projected = layer.joined.product(x)
        add_lora(projected, x, added, ("query", "key", "value"))
        context = pack.attend(projected, stack.heads, _NO_DROPOUT, bias)
        y = layer.attention.product(context)
        add_lora(y, context, added, ("attention",))
        x = site(2 * n, y, x, *layer.attention_norm)
        if layer.activation is None and not added:
            inner = layer.inner.product(x, gelu=True)
        else:
            inner = layer.inner.product(x)
            add_lora(inner, x, added, ("inner",))
            inner = F.gelu(inner) if layer.activation is None else layer.activation(inner)
        y = layer.feedforward.product(inner)
        add_lora(y, inner, added, ("feedforward",))
        x = site(2 * n + 1, y, x, *layer.feedforward_norm)
    return x[: pack.tokens]


def _native_site(stack: Stack, segments: Sequence[Segment]) -> Callable[..., Tensor] | None:
    if stack.dtype != torch.bfloat16 or stack.device.type != "cpu" or not fits([], stack.width):
        return None
    parts = [None if s.adapter is None else s.adapter.native for s in segments]
    if any(
        part is None and s.adapter is not None and any(s.adapter.sites())
        for part, s in zip(parts, segments, strict=True)
    ):
        return None
    factor = None
    if any(segment.factor is not None for segment in segments):
        factor = torch.from_numpy(np.ones(segments[-1].end, dtype=np.float32))
        for _, start, end, own in segments:
            if own is not None:
                factor[start:end] = own[:, 0]
    starts, ends = [segment.start for segment in segments], [segment.end for segment in segments]
    return Int8Batch(parts, starts, ends, factor, 2 * len(stack.layers)).site


def _plain_site(segments: Sequence[Segment]) -> Callable[..., Tensor]:
    sites = [None if segment.adapter is None else segment.adapter.sites() for segment in segments]

    def site(number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        parts = [None if own is None else own[number] for own in sites]
        spans = [Span(part, *s[1:]) for part, s in zip(parts, segments, strict=True)]
        return grouped_bottleneck(y, residual, gamma, beta, eps, spans)

    return site
