"""Bottleneck, residual and layer norm after an output projection, for tokens of many adapters at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from scions.adapters.config import ACTIVATIONS


class BottleneckTensors(NamedTuple):
    """One adapter after one projection; the bottleneck or the norm may be missing.

    ``down`` ``[rank, width]``, ``down_bias`` ``[rank]``, ``up`` ``[width, rank]`` and ``up_bias`` ``[width]`` are in
    the precision of the projections, ``gamma`` and ``beta`` ``[width]`` in that of the base's norms.
    ``reads_residual``: the bottleneck's input is the residual (placement ``parallel``), not the projection's output.
    """

    down: Tensor | None = None
    down_bias: Tensor | None = None
    up: Tensor | None = None
    up_bias: Tensor | None = None
    gamma: Tensor | None = None
    beta: Tensor | None = None
    activation: str = "gelu"
    reads_residual: bool = False


class BottleneckSpan(NamedTuple):
    """Neighboring tokens of one adapter, from ``start`` to before ``end``.

    ``factor`` ``[end - start, 1]`` float32 is the strength of the adapter at each token; None: 1.
    """

    tensors: BottleneckTensors | None
    start: int
    end: int
    factor: Tensor | None = None


def grouped_bottleneck(
    y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float, spans: Sequence[BottleneckSpan]
) -> Tensor:
    """Return ``norm(y + factor * up(act(down(y))) + residual)``, with bottleneck and norm of each span.

    Between strengths the norm is interpolated: its gamma is ``base + factor * (adapter - base)``, its beta likewise.

    Args:
        y: ``[tokens, width]``, the projection's output; overwritten.
        residual: ``[tokens, width]``.
        gamma: ``[width]``, the base's norm, for spans whose adapter has none.
        beta: ``[width]``.
        eps: the base's norm's.
        spans: cover all tokens, in order.

    Returns:
        ``[tokens, width]``.
    """
    has_norms = False
    for tensors, start, end, factor in spans:
        if tensors is None:
            continue
        has_norms = has_norms or tensors.gamma is not None
        if tensors.down is not None and tensors.up is not None:
            rows = y[start:end]
            read = residual[start:end] if tensors.reads_residual else rows
            hidden = ACTIVATIONS[tensors.activation](F.linear(read, tensors.down, tensors.down_bias))
            delta = F.linear(hidden, tensors.up, tensors.up_bias)
            rows.add_(delta if factor is None else delta.mul_(factor))
    y.add_(residual)
    if not has_norms:
        return F.layer_norm(y, (y.shape[1],), gamma, beta, eps)
    return torch.cat([_norm(y[span.start : span.end], span, gamma, beta, eps) for span in spans])


def _norm(z: Tensor, span: BottleneckSpan, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    tensors, width = span.tensors, (z.shape[1],)
    if tensors is None or tensors.gamma is None:
        return F.layer_norm(z, width, gamma, beta, eps)
    adapted = F.layer_norm(z, width, tensors.gamma, tensors.beta, eps)
    if span.factor is None:
        return adapted
    # Linear in gamma and beta: mixing the two results is mixing the parameters, and exact at 0 and 1.
    base = F.layer_norm(z, width, gamma, beta, eps)
    return torch.lerp(base.float(), adapted.float(), span.factor).to(z.dtype)
