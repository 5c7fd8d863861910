"""CoSENT: the order of the similarities should be the order of the scores."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def cosent_loss(columns: torch.Tensor, scores: torch.Tensor, scale: float) -> torch.Tensor:
    """``log(1 + sum over pairs with score i < score j of exp(scale * (cos i - cos j)))``.

    Source: Su 2022, "CoSENT", as defined in sentence-transformers' ``CoSENTLoss``; here without a model inside, so
    that it can be computed from vectors that were encoded together.

    Args:
        columns: ``[2, rows, dimensions]``.
        scores: ``[rows]``; only their order is used.
        scale: inverse temperature.

    Returns:
        The loss, a scalar; 0 where all scores of the batch are equal.
    """
    cosine = scale * F.cosine_similarity(columns[0].float(), columns[1].float(), dim=-1)
    gaps = cosine[:, None] - cosine[None, :]
    gaps = gaps.masked_fill(scores[:, None] >= scores[None, :], float("-inf"))
    return torch.logsumexp(torch.cat([gaps.new_zeros(1), gaps.flatten()]), dim=0)
