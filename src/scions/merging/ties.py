"""TIES merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scions.errors import UsageError
from scions.merging.averaging import average, normalized

DENSITY = 0.2  # as in the paper


def ties(
    members: Sequence[Mapping[str, Tensor]],
    start: Mapping[str, Tensor],
    weights: Sequence[float] | None = None,
    density: float = DENSITY,
) -> dict[str, Tensor]:
    """Merge by TIES (Yadav et al. 2023, arXiv 2306.01708, algorithm 1): trim, elect signs, merge what agrees.

    It works on the members' differences from ``start``, their common first weights; the merged difference is not scaled
    (the paper's lambda is 1). Tensors without a start (layer norms) are averaged.

    Args:
        members: tensors by name, the same names and shapes in each.
        start: first weights by name, of the tensors that TIES merges.
        weights: one per member; None: all equal.
        density: share of each member's differences that is not trimmed, the largest over all its tensors.

    Raises:
        UsageError: as `normalized`, or a density out of range.
    """
    if not 0 < density <= 1:
        raise UsageError(f"`density=...` must be above 0 and at most 1, found {density}")
    shares = normalized(weights or [1.0] * len(members), len(members))
    merged = average(members, shares)
    trimmed = []
    for member in members:
        differences = {name: member[name].float() - first.float() for name, first in start.items()}
        threshold = magnitude(differences.values(), 1 - density)
        trimmed.append({name: d * (d.abs() > threshold) for name, d in differences.items()})
    for name, first in start.items():
        stacked = torch.stack([w * t[name] for w, t in zip(shares, trimmed, strict=True)])
        elected = stacked.sum(dim=0).sign()
        agrees = (stacked.sign() == elected) & (stacked != 0)
        weight = sum(w * a for w, a in zip(shares, agrees, strict=True))
        total = (stacked * agrees).sum(dim=0)
        merged[name] = first.float() + torch.where(weight > 0, total / weight.clamp_min(1e-12), 0.0)  # type: ignore[union-attr, operator]
    return merged


def magnitude(tensors: object, share: float) -> float:
    """Return the absolute value at or below which ``share`` of all values lie; -1 where the share is none of them."""
    flat = torch.cat([tensor.abs().reshape(-1) for tensor in tensors])  # type: ignore[attr-defined]
    rank = round(share * flat.numel())
    return float(flat.kthvalue(rank).values) if rank else -1.0
