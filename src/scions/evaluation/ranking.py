"""Nearest documents of each query, in bounded memory and with deterministic ties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
    relevant: Sequence[Mapping[int, float]] | None = None,
) -> np.ndarray:
    """Return positions of the `depth` documents of highest cosine to each query, best first.

    Of equal cosines the less relevant document comes first, so that an order of the corpus gains nothing; then the
    earlier position.

    queries: `[queries, dimensions]` unit vectors. blocks: (position of the first document, `[documents, dimensions]`
    unit vectors), together `total` documents. excluded: pairs (query numbers, document positions), both `[pairs]`, that
    are left out. relevant: grades above 0 by document position, of each query. Returns `[queries, min(depth, total)]`
    int64, -1 where too few documents are left.
    """
    import torch

    depth = min(depth, total)
    grades = sorted({grade for graded in relevant or () for grade in graded.values()})
    step = total * (len(grades) + 1)
    query_of, document_of, lowered = _pairs(relevant or (), grades, total)
    best = np.full((len(queries), depth), -1, dtype=np.int64)
    for start, matrix in blocks:
        documents = torch.from_numpy(np.ascontiguousarray(matrix)).T
        tiebreak = total - 1 - torch.arange(start, start + len(matrix))
        for low in range(0, len(queries), QUERIES_AT_ONCE):
            chunk = torch.from_numpy(np.ascontiguousarray(queries[low : low + QUERIES_AT_ONCE]))
            # One integer holds score and position, so that a top-k over it has no ties at all.
            keys = ((chunk @ documents) / RESOLUTION).round_().to(torch.int64)
            keys = keys.add_(int(2 / RESOLUTION)).mul_(step).add_(tiebreak + len(grades) * total)
            block = (low, len(chunk), start, len(matrix))
            here, row, column = _within(query_of, document_of, block)
            keys[row, column] -= torch.from_numpy(lowered[here])
            if excluded is not None:
                _, row, column = _within(*excluded, block)
                keys[row, column] = -1
            pool = torch.cat([torch.from_numpy(best[low : low + len(chunk)]), keys], dim=1)
            best[low : low + len(chunk)] = torch.topk(pool, depth, dim=1).values.numpy()
    return np.where(best >= 0, total - 1 - best % total, -1)


def _pairs(
    relevant: Sequence[Mapping[int, float]], grades: list[float], total: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return query numbers and document positions of relevant pairs, and how far each ranks below its ties."""
    level = {grade: (place + 1) * total for place, grade in enumerate(grades)}
    pairs = [(query, document, level[g]) for query, graded in enumerate(relevant) for document, g in graded.items()]
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def _within(query: np.ndarray, document: np.ndarray, block: tuple[int, int, int, int]) -> tuple[np.ndarray, Any, Any]:
    """Return which pairs lie in a block (first query, queries, first document, documents), and where in it."""
    import torch

    low, queries, start, documents = block
    here = (query >= low) & (query < low + queries) & (document >= start) & (document < start + documents)
    return here, torch.from_numpy(query[here] - low), torch.from_numpy(document[here] - start)
