"""What adapters do to vectors: how the similarities of common texts change, and whether two change them alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scions.errors import UsageError


@dataclass(frozen=True)
class Effect:
    """How alike two adapters' changes are: the cosine and the Spearman correlation over all pairs of texts."""

    cosine: float
    spearman: float


def similarity_changes(base: np.ndarray, adapted: np.ndarray) -> np.ndarray:
    """``[n (n - 1) / 2]``: for every pair of n texts, the adapter's cosine less the base's.

    Args:
        base: unit vectors of the bare base, ``[n, dimensions]``.
        adapted: of the adapter, for the same texts.

    Raises:
        UsageError: different numbers of texts, or fewer than three.
    """
    if len(base) != len(adapted) or len(base) < 3:
        raise UsageError(f"the same texts are needed for both, three or more; found {len(base)} and {len(adapted)}")
    upper = np.triu_indices(len(base), 1)
    return np.asarray((adapted @ adapted.T - base @ base.T)[upper], dtype=np.float64)


def effect(one: np.ndarray, other: np.ndarray) -> Effect:
    """Of two adapters' `similarity_changes`; 0 where one of them changes nothing, or everything alike."""
    from scions.evaluation.metrics import spearman

    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / length if length else 0.0
    ranked = float(spearman(one, other))
    return Effect(cosine, 0.0 if np.isnan(ranked) else ranked)
