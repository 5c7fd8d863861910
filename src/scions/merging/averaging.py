"""Weighted mean of adapters' tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from scions.errors import UsageError


def normalized(weights: Sequence[float], count: int) -> list[float]:
    """Return ``weights`` scaled to a sum of 1.

    Raises:
        UsageError: their number is not ``count``, a negative one, one that is not finite, or all zeros.
    """
    if len(weights) != count:
        raise UsageError(f"{len(weights)} weights for {count} adapters; each adapter needs one")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise UsageError(f"weights must be 0 or more, and one of them above 0; found {', '.join(map(str, weights))}")
    return [w / sum(weights) for w in weights]


def average(members: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of every tensor, layer norms included, in float32.

    Args:
        members: tensors by name, the same names and shapes in each.
        weights: one per member, scaled to a sum of 1.

    Raises:
        UsageError: as `normalized`.
    """
    shares = normalized(weights, len(members))
    return {
        name: sum(w * m[name].double() for w, m in zip(shares, members, strict=True)).float()  # type: ignore[union-attr]
        for name in members[0]
    }
