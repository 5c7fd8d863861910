"""How many rows go through the encoder together, and in which order."""

from __future__ import annotations

import numpy as np

# Tokens of one pass: enough work for an operator to be worth its call, little enough to stay near the caches.
BATCH_TOKENS = 8192
# Float32 activations are twice as large, and leave the caches sooner.
FLOAT_BATCH_TOKENS = 2048


def batches_by_length(lengths: np.ndarray, rows: int | None = None, tokens: int = BATCH_TOKENS) -> list[np.ndarray]:
    """Numbers of the rows of each batch: sorted by length, longest first, so that a batch's rows are alike.

    Args:
        lengths: ``[rows]`` tokens of each row.
        rows: at most so many rows a batch; None: as many as the tokens allow.
        tokens: at most so many tokens a batch, each row counted as long as the batch's longest. A longer row goes
            alone.
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
