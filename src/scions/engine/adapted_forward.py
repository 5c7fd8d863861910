"""The packed loop with an adapter a row: rows of one adapter stand together, and are one span of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scions.engine.adapter_weights import AdapterWeights
from scions.engine.attention import PackedLayout
from scions.engine.bottleneck import BottleneckSpan, grouped_bottleneck
from scions.engine.forward import embed, position_bias
from scions.engine.kernels.int8_bottleneck import Int8Batch, fits
from scions.engine.layers import BaseLayers
from scions.engine.lora import add_lora

_NO_DROPOUT = nn.Dropout(0.0).eval()


class AdapterSpan(NamedTuple):
    """Neighbouring tokens of one adapter (None: of the bare base).

    ``factor`` ``[end - start, 1]`` float32: the strength at each token; None: 1.
    """

    adapter: AdapterWeights | None
    start: int
    end: int
    factor: Tensor | None = None


def order_by_adapter(adapters: Sequence[AdapterWeights | None]) -> np.ndarray:
    """Numbers of the rows, those of one adapter together, the bare base's first."""
    number: dict[int, int] = {}
    keys = [-1 if adapter is None else number.setdefault(id(adapter), len(number)) for adapter in adapters]
    return np.argsort(keys, kind="stable")


def adapter_spans(
    adapters: Sequence[AdapterWeights | None], strengths: Sequence[float], lengths: np.ndarray, device: torch.device
) -> list[AdapterSpan]:
    """The segments of rows that `order_by_adapter` has ordered; ``lengths`` ``[rows]`` are their tokens."""
    spans: list[AdapterSpan] = []
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
        spans.append(AdapterSpan(adapters[first], ends[first - 1] if first else 0, ends[last - 1], factor))
        first = last
    return spans


def run_adapted_layers(
    network: Any, base: BaseLayers, token_ids: Tensor, layout: PackedLayout, spans: Sequence[AdapterSpan]
) -> Tensor:
    """Hidden states ``[tokens, width]`` behind the last layer, in the stack's precision.

    Args:
        network: the transformers model, for its embeddings.
        stack: its layers.
        token_ids: ``[tokens]``, packed as ``layout`` says.
        pack: the layout.
        segments: cover all tokens, in order.
    """
    x = F.pad(embed(network, token_ids, layout).to(base.dtype), (0, 0, 0, layout.rows - layout.tokens))
    bias = position_bias(network, layout)
    spans = [*spans, AdapterSpan(None, layout.tokens, layout.rows)] if layout.rows > layout.tokens else spans
    low_rank = [span for span in spans if span.adapter is not None and span.adapter.has_low_rank]
    site = _native_site(base, spans) or _plain_site(spans)
    for n, layer in enumerate(base.layers):
        added = [(s.adapter.layers[n], *s[1:]) for s in low_rank if s.adapter is not None]
        projected = layer.joined.product(x)
        add_lora(projected, x, added, ("query", "key", "value"))
        context = layout.attend(projected, base.heads, _NO_DROPOUT, bias)
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
    return x[: layout.tokens]


def _native_site(base: BaseLayers, spans: Sequence[AdapterSpan]) -> Callable[..., Tensor] | None:
    if base.dtype != torch.bfloat16 or base.device.type != "cpu" or not fits([], base.width):
        return None
    parts = [None if s.adapter is None else s.adapter.native for s in spans]
    if any(
        part is None and s.adapter is not None and any(s.adapter.sites()) for part, s in zip(parts, spans, strict=True)
    ):
        return None
    factor = None
    if any(span.factor is not None for span in spans):
        factor = torch.from_numpy(np.ones(spans[-1].end, dtype=np.float32))
        for _, start, end, own in spans:
            if own is not None:
                factor[start:end] = own[:, 0]
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    return Int8Batch(parts, starts, ends, factor, 2 * len(base.layers)).site


def _plain_site(spans: Sequence[AdapterSpan]) -> Callable[..., Tensor]:
    bottlenecks = [None if span.adapter is None else span.adapter.sites() for span in spans]

    def site(number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        parts = [
            BottleneckSpan(None if of_layer is None else of_layer[number], *span[1:])
            for of_layer, span in zip(bottlenecks, spans, strict=True)
        ]
        return grouped_bottleneck(y, residual, gamma, beta, eps, parts)

    return site
