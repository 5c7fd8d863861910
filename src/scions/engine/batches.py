"""Batches of rows of similar length."""

from __future__ import annotations

import numpy as np

# Tokens of a batch: enough work for an operator to be worth its call, few enough to stay near the caches.
BATCH_TOKENS = 8192
# Float32 activations are twice as large, and leave the caches sooner.
FLOAT_BATCH_TOKENS = 2048


def batches_by_length(lengths: np.ndarray, rows: int | None = None, tokens: int = BATCH_TOKENS) -> list[np.ndarray]:
    """Return the numbers of the rows of each batch, longest first.

    Args:
        lengths: ``[rows]`` tokens of each row.
        rows: most rows of a batch; None: as many as ``tokens`` allows.
        tokens: most tokens of a batch, with each row counted as long as the longest; a longer row is a batch alone.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, int(lengths[order[start]])))
        size = size if rows is None else min(size, rows)
        batches.append(order[start : start + size])
        start += size
    return batches
