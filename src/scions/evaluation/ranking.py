"""Nearest documents of each query, in bounded memory and with deterministic ties."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

QUERIES_AT_ONCE = 512
DOCUMENTS_AT_ONCE = 20_000
# Cosines closer than this are ties: below it, the order of summation within a matrix product decides.
RESOLUTION = 1e-6


def nearest(
    queries: np.ndarray,
    blocks: Iterable[tuple[int, np.ndarray]],
    total: int,
    depth: int,
    excluded: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return positions of the `depth` documents of highest cosine to each query, best first, ties by position.

    queries: `[queries, dimensions]` unit vectors. blocks: (position of the first document, `[documents, dimensions]`
    unit vectors), together `total` documents. excluded: pairs (query numbers, document positions), both `[pairs]`, that
    are left out. Returns `[queries, min(depth, total)]` int64, -1 where too few documents are left.
    """
    import torch

    depth = min(depth, total)
    best = np.full((len(queries), depth), -1, dtype=np.int64)
    for start, matrix in blocks:
        documents = torch.from_numpy(np.ascontiguousarray(matrix)).T
        tiebreak = total - 1 - torch.arange(start, start + len(matrix))
        for low in range(0, len(queries), QUERIES_AT_ONCE):
            chunk = torch.from_numpy(np.ascontiguousarray(queries[low : low + QUERIES_AT_ONCE]))
            # One integer holds score and position, so that a top-k over it has no ties at all.
            keys = ((chunk @ documents) / RESOLUTION).round_().to(torch.int64)
            keys = keys.add_(int(2 / RESOLUTION)).mul_(total).add_(tiebreak)
            if excluded is not None:
                query, document = excluded
                here = (query >= low) & (query < low + len(chunk))
                here &= (document >= start) & (document < start + len(matrix))
                keys[torch.from_numpy(query[here] - low), torch.from_numpy(document[here] - start)] = -1
            pool = torch.cat([torch.from_numpy(best[low : low + len(chunk)]), keys], dim=1)
            best[low : low + len(chunk)] = torch.topk(pool, depth, dim=1).values.numpy()
    return np.where(best >= 0, total - 1 - best % total, -1)
