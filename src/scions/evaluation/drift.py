"""Drift: how much an adapter changes the similarities of general text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scions.errors import UsageError
from scions.evaluation.encoders import Encoder, cosines
from scions.evaluation.metrics import spearman


def drift(base_similarities: np.ndarray, adapted_similarities: np.ndarray) -> float:
    """Spearman x100 between `[n]` similarities of the same pairs before and after: 100 = the order is unchanged.

    It measures change, not whether for better or worse. Raises UsageError for unequal lengths or fewer than 3.
    """
    base, adapted = np.asarray(base_similarities), np.asarray(adapted_similarities)
    if base.shape != adapted.shape or base.ndim != 1 or len(base) < 3:
        raise UsageError(
            f"drift compares similarities of the same pairs, at least 3; got shapes {base.shape} and {adapted.shape}."
        )
    return 100.0 * spearman(base, adapted)


def drift_of(base: Encoder, adapted: Encoder, pairs: Sequence[tuple[str, str]], *, batch_size: int = 64) -> float:
    """`drift` between two encoders on these pairs of texts."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return drift(*(cosines(encoder, first, second, batch_size=batch_size) for encoder in (base, adapted)))
