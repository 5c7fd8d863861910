"""What follows an output projection, for tokens of many adapters at once: bottleneck, residual and layer norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class BottleneckTensors(NamedTuple):
    """One adapter at one site; either half may be absent.

    ``down`` ``[rank, width]``, ``down_bias`` ``[rank]``, ``up`` ``[width, rank]`` and ``up_bias`` ``[width]`` in the
    precision of the projections; ``gamma`` and ``beta`` ``[width]`` as the base's norms are held.
    ``reads_residual``: the bottleneck reads the residual (placement ``parallel``) and not the projection's output.
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
    """Neighbouring tokens of one adapter, from ``start`` to before ``end``.

    ``factor`` is ``[end - start, 1]`` float32, how strongly the adapter acts on each token; None: 1 for all.
    """

    part: BottleneckTensors | None
    start: int
    end: int
    factor: Tensor | None = None


def grouped_bottleneck(
    y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float, spans: Sequence[BottleneckSpan]
) -> Tensor:
    """``norm(y + factor * up(act(down(y))) + residual)``, each span with its own bottleneck and norm.

    Between strengths the norm is interpolated: its gamma is ``base + factor * (adapter - base)``, its beta likewise.

    Args:
        y: ``[tokens, width]``, the projection's output; overwritten.
        residual: ``[tokens, width]``.
        gamma: ``[width]``, the base's norm, for spans without one of their own.
        beta: ``[width]``.
        eps: the base's norm's.
        spans: cover all tokens, in order.

    Returns:
        ``[tokens, width]``.
    """
    own_norms = False
    for part, start, end, factor in spans:
        if part is None:
            continue
        own_norms = own_norms or part.gamma is not None
        if part.down is not None and part.up is not None:
            mine = y[start:end]
            read = residual[start:end] if part.reads_residual else mine
            hidden = ACTIVATIONS[part.activation](F.linear(read, part.down, part.down_bias))
            delta = F.linear(hidden, part.up, part.up_bias)
            mine.add_(delta if factor is None else delta.mul_(factor))
    y.add_(residual)
    width = (y.shape[1],)
    if not own_norms:
        return F.layer_norm(y, width, gamma, beta, eps)
    return torch.cat([_normed(y[span.start : span.end], span, gamma, beta, eps) for span in spans])


def _normed(z: Tensor, span: BottleneckSpan, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    part, width = span.part, (z.shape[1],)
    if part is None or part.gamma is None:
        return F.layer_norm(z, width, gamma, beta, eps)
    own = F.layer_norm(z, width, part.gamma, part.beta, eps)
    if span.factor is None:
        return own
    # Linear in gamma and beta: mixing the two results is mixing the parameters, and exact at 0 and 1.
    base = F.layer_norm(z, width, gamma, beta, eps)
    return torch.lerp(base.float(), own.float(), span.factor).to(z.dtype)
