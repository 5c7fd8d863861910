"""Encoder layers over packed tokens with an adapter per row: rows of one adapter are neighbors, and form one span."""

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
from scions.engine.lora import LoraSpan, add_lora

_NO_DROPOUT = nn.Dropout(0.0).eval()


class AdapterSpan(NamedTuple):
    """Neighboring tokens of one adapter (None: of the bare base), from ``start`` to before ``end``.

    ``factor`` ``[end - start, 1]`` float32 is the strength of the adapter at each token; None: 1.
    """

    adapter: AdapterWeights | None
    start: int
    end: int
    factor: Tensor | None = None


def order_by_adapter(adapters: Sequence[AdapterWeights | None]) -> np.ndarray:
    """Return the numbers of the rows, those of one adapter together, the bare base's first."""
    number: dict[int, int] = {}
    keys = [-1 if adapter is None else number.setdefault(id(adapter), len(number)) for adapter in adapters]
    return np.argsort(keys, kind="stable")


def adapter_spans(
    adapters: Sequence[AdapterWeights | None], strengths: Sequence[float], lengths: np.ndarray, device: torch.device
) -> list[AdapterSpan]:
    """Return the spans of rows in the order of `order_by_adapter`.

    Args:
        adapters: of each row.
        strengths: of each row.
        lengths: ``[rows]``, tokens of each row.
        device: for the factors.
    """
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
    """Return the hidden states ``[tokens, width]`` after the last layer, in the precision of ``base``.

    Args:
        network: the transformers model, for its embeddings.
        base: its layers.
        token_ids: ``[tokens]``, packed as ``layout`` says.
        layout: how rows are packed.
        spans: cover all tokens, in order.
    """
    x = layout.filled(embed(network, token_ids, layout).to(base.dtype))
    bias = position_bias(network, layout)
    spans = [*spans, AdapterSpan(None, layout.tokens, layout.rows)] if layout.rows > layout.tokens else spans
    with_lora = [span for span in spans if span.adapter is not None and span.adapter.has_lora]
    sublayer_end = _native_sublayer_end(base, spans) or _plain_sublayer_end(spans)
    for n, layer in enumerate(base.layers):
        lora = [LoraSpan(span.adapter.layers[n].lora, *span[1:]) for span in with_lora if span.adapter is not None]
        projected = layer.joined.product(x)
        add_lora(projected, x, lora, ("query", "key", "value"))
        context = layout.attend(projected, base.heads, _NO_DROPOUT, bias)
        y = layer.attention.product(context)
        add_lora(y, context, lora, ("attention",))
        x = sublayer_end(2 * n, y, x, *layer.attention_norm)
        if layer.activation is None and not lora:
            inner = layer.feedforward_input.product(x, gelu=True)
        else:
            inner = layer.feedforward_input.product(x)
            add_lora(inner, x, lora, ("feedforward_input",))
            inner = F.gelu(inner) if layer.activation is None else layer.activation(inner)
        y = layer.feedforward.product(inner)
        add_lora(y, inner, lora, ("feedforward",))
        x = sublayer_end(2 * n + 1, y, x, *layer.feedforward_norm)
    return x[: layout.tokens]


def _native_sublayer_end(base: BaseLayers, spans: Sequence[AdapterSpan]) -> Callable[..., Tensor] | None:
    """Return the compiled kernel for bottleneck, residual and norm; None where it does not cover this batch."""
    if base.dtype != torch.bfloat16 or base.device.type != "cpu" or not fits([], base.width):
        return None
    bottlenecks = []
    for adapter, *_ in spans:
        if adapter is not None and adapter.native is None and any(adapter.bottlenecks()):
            return None
        bottlenecks.append(None if adapter is None else adapter.native)
    factor = None
    if any(span.factor is not None for span in spans):
        factor = torch.from_numpy(np.ones(spans[-1].end, dtype=np.float32))
        for span in spans:
            if span.factor is not None:
                factor[span.start : span.end] = span.factor[:, 0]
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    return Int8Batch(bottlenecks, starts, ends, factor, 2 * len(base.layers)).run


def _plain_sublayer_end(spans: Sequence[AdapterSpan]) -> Callable[..., Tensor]:
    bottlenecks = [None if span.adapter is None else span.adapter.bottlenecks() for span in spans]

    def run(number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        parts = [
            BottleneckSpan(None if tensors is None else tensors[number], *span[1:])
            for tensors, span in zip(bottlenecks, spans, strict=True)
        ]
        return grouped_bottleneck(y, residual, gamma, beta, eps, parts)

    return run
