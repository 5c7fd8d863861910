"""Metrics as pure functions on arrays, from 0 to 1 (Spearman: -1 to 1), NaN where undefined.

A bootstrap calls these thousands of times, so they are vectorized numpy; the tests compare them with scipy and
scikit-learn. Ranked metrics take one row per query, best document first.
"""

from __future__ import annotations

import numpy as np


def dense_codes(values: np.ndarray) -> np.ndarray:
    """Number the distinct values upwards: `[n]` of anything sortable -> `[n]` int64.

    >>> dense_codes(np.array([0.5, 0.1, 0.5])).tolist()
    [1, 0, 1]
    """
    codes: np.ndarray = np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def ranks_of_codes(codes: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties averaged, of `[n]` dense codes, in linear time (a resample needs no new sorting).

    >>> ranks_of_codes(np.array([1, 0, 1])).tolist()
    [2.5, 1.0, 2.5]
    """
    counts = np.bincount(codes)
    return np.asarray((np.cumsum(counts) - counts + (counts + 1) / 2)[codes])


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of two `[n]` arrays; NaN where one of them is constant.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 6)
    1.0
    """
    x, y = first - first.mean(), second - second.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two `[n]` arrays, ties averaged.

    >>> round(spearman(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4])), 6)
    0.8
    """
    return pearson(ranks_of_codes(dense_codes(first)), ranks_of_codes(dense_codes(second)))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the precision-recall steps of `[n]` scores against `[n]` 0/1 labels; equal scores count as one step.

    >>> round(average_precision(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1])), 4)
    0.8333
    >>> average_precision(np.array([0.5, 0.5]), np.array([1, 0]))
    0.5
    """
    positives = labels.sum()
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores)
    ordered = scores[order]
    step = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    hits = np.cumsum(labels[order])[step]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (step + 1)) / positives)


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive of `[n]` 0/1 labels outscores a negative, ties counting half (Mann-Whitney).

    >>> roc_auc(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1]))
    0.5
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    above = ranks_of_codes(dense_codes(scores))[labels > 0].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def ndcg_at_k(ranked: np.ndarray, ideal: np.ndarray, k: int) -> np.ndarray:
    """nDCG of each query, `[queries]`: gain = the grade itself (linear, as BEIR counts), discount log2(rank + 1).

    ranked: `[queries, depth]` grades of the documents found, 0 for an irrelevant one.
    ideal: `[queries, any]` grades of all relevant documents of the query, falling, filled up with 0.

    >>> ndcg_at_k(np.array([[0.0, 1.0]]), np.array([[1.0]]), 10).round(4).tolist()
    [0.6309]
    >>> ndcg_at_k(np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]]), 10).round(4).tolist()
    [0.8597]
    """

    def gain(grades: np.ndarray) -> np.ndarray:
        top = grades[:, :k]
        return np.asarray(top @ (1.0 / np.log2(np.arange(2, top.shape[1] + 2))))

    best = gain(ideal)
    return np.asarray(np.divide(gain(ranked), best, out=np.full(len(best), np.nan), where=best > 0))


def reciprocal_rank_at_k(ranked: np.ndarray, k: int) -> np.ndarray:
    """1 / rank of the first relevant document of each query, 0 where none is among the first k: `[queries]`.

    >>> reciprocal_rank_at_k(np.array([[0, 1, 1], [0, 0, 0]]), 10).tolist()
    [0.5, 0.0]
    """
    hits = ranked[:, :k] > 0
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def average_precision_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Precision at each relevant document among the first k, summed, over all `[queries]` relevant ones: `[queries]`.

    >>> average_precision_at_k(np.array([[1, 0, 1, 0]]), np.array([2]), 100).round(4).tolist()
    [0.8333]
    """
    hits = ranked[:, :k] > 0
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / relevant)


def recall_at_k(ranked: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Share of the `[queries]` relevant documents among the first k: `[queries]`.

    >>> recall_at_k(np.array([[1, 0, 1, 0]]), np.array([4]), 3).tolist()
    [0.5]
    """
    return np.asarray((ranked[:, :k] > 0).sum(axis=1) / relevant)


def v_measure(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Harmonic mean of homogeneity and completeness of two `[n]` codings from 0 (Rosenberg & Hirschberg, 2007).

    >>> v_measure(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    >>> v_measure(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    0.0
    """
    width = int(clusters.max()) + 1
    joint = np.bincount(labels * width + clusters, minlength=(int(labels.max()) + 1) * width).reshape(-1, width)

    def entropy(counts: np.ndarray) -> float:
        share = counts[counts > 0] / counts.sum()
        return float(-(share * np.log(share)).sum())

    apart = entropy(joint.sum(axis=1)) + entropy(joint.sum(axis=0))
    return max(0.0, 2 * (apart - entropy(joint.ravel())) / apart) if apart > 0 else 1.0


def v_measures(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """`v_measure` of `[n]` labels against each row of `[draws, n]` clusterings, all codings from 0.

    >>> v_measures(np.array([0, 0, 1, 1]), np.array([[1, 1, 0, 0], [0, 1, 0, 1]])).tolist()
    [1.0, 0.0]
    """
    n = clusters.shape[1]
    width = int(clusters.max()) + 1

    def entropies(codes: np.ndarray, size: int) -> np.ndarray:
        keys = codes + np.arange(len(codes))[:, None] * size
        if size <= 4 * n:
            counts = np.bincount(keys.ravel(), minlength=len(codes) * size)
            cells = np.flatnonzero(counts)
            counts = counts[cells]
        else:  # with many labels the table of all cells would not fit
            cells, counts = np.unique(keys, return_counts=True)
        shares = counts / n
        return np.asarray(-np.bincount(cells // size, shares * np.log(shares), minlength=len(codes)))

    height = int(labels.max()) + 1
    apart = entropies(labels[None], height) + entropies(clusters, width)
    together = entropies(labels * width + clusters, height * width)
    found = np.divide(2 * (apart - together), apart, out=np.ones_like(apart), where=apart > 0)
    return np.asarray(np.maximum(0.0, found))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`average_precision` of each row of `[draws, n]` scores against `[n]` 0/1 labels.

    >>> average_precisions(np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.5]]), np.array([1, 0, 1])).round(4).tolist()
    [0.8333, 0.6667]
    """
    n = scores.shape[1]
    order = np.argsort(-scores, axis=1)
    ranked, right = np.take_along_axis(scores, order, axis=1), labels[order]
    precision = np.cumsum(right, axis=1) / np.arange(1, n + 1)
    # Equal scores are one step: each has the precision at the last of them.
    last = np.ones_like(ranked, dtype=bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    end = np.minimum.accumulate(np.where(last, np.arange(n), n)[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((np.take_along_axis(precision, end, axis=1) * right).sum(axis=1) / labels.sum())
