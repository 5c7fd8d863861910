"""Compare the vectors of one row between two engines and between two batchings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def batchings(encoder: Any, texts: Sequence[str], adapters: Sequence[str | None]) -> list[np.ndarray]:
    """The rows' vectors with 1, 7 and 64 rows a batch, and shuffled in batches of the default size."""
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    found = [encoder.encode(texts, batch_size=size, adapter=list(adapters)) for size in (1, 7, 64)]
    shuffled = encoder.encode([texts[i] for i in order], adapter=[adapters[i] for i in order])
    return [*found, shuffled[np.argsort(order)]]


def same(found: Sequence[np.ndarray]) -> bool:
    """Whether all are equal, bit for bit."""
    return all(np.array_equal(found[0], other) for other in found[1:])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``[rows]``, of the rows of the same number."""
    one, other = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1)[:, None] for x in (one, other))
    return (one * other).sum(axis=1)


def least(one: np.ndarray, other: np.ndarray) -> float:
    """Least cosine of rows of the same number."""
    return round(float(cosines(one, other).min()), 6)
