"""Scores of an encoder, with results per unit from which resamples are scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from scions.data.shapes import Shape
from scions.errors import UsageError
from scions.evaluation import metrics

Recompute = Callable[[np.ndarray], float]


@dataclass
class Evaluation:
    """Scores of one encoder on one table. A unit is a row, or a query where rows are queries.

    shape: the table's. primary: the metric that decides. n: number of units.
    scores: metric -> value x100.
    units: metric -> function of `[m]` unit indices (repeats allowed), giving the metric on those, 0..1.
    rows: a hash of the units' texts, so that results on different rows are never paired.
    groups: `[n]`, the number of each unit's group, from 0: units that share a text or a document are one group, and
    only groups are independent of each other. None: every unit is its own group.
    documents: size of the pool that each query searches; None where nothing is searched.
    """

    shape: Shape
    primary: str
    n: int
    scores: dict[str, float]
    units: dict[str, Recompute] = field(default_factory=dict, repr=False)
    rows: str = field(default="", repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)
    documents: int | None = None

    @property
    def group_codes(self) -> np.ndarray:
        """`[n]`, the group of each unit."""
        return np.arange(self.n) if self.groups is None else self.groups

    @property
    def value(self) -> float:
        """The primary score, x100."""
        return self.scores[self.primary]

    def resampled(self, metric: str, indices: np.ndarray) -> float:
        """Return the metric x100 on these units, without encoding again.

        NaN where the resample leaves it undefined (one class only, say). Raises UsageError for an unknown metric.
        """
        if metric not in self.units:
            raise UsageError(f"No metric {metric!r} in this evaluation; it has {', '.join(self.units) or 'none'}.")
        return 100.0 * self.units[metric](indices)


def concluded(
    shape: Shape,
    primary: str,
    units: dict[str, Recompute],
    texts: list[str],
    full: dict[str, float] | None = None,
    groups: Sequence[int] | None = None,
    documents: int | None = None,
) -> Evaluation:
    """Return an Evaluation scored on all units, except metrics whose value (0 to 1) is in `full`."""
    every = np.arange(len(texts))
    known = full or {}
    scores = {name: 100.0 * (known[name] if name in known else units[name](every)) for name in units}
    codes = None if groups is None else metrics.dense_codes(np.asarray(groups))
    return Evaluation(shape, primary, len(texts), scores, units, _hash(texts), codes, documents)


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


class MeanOfUnits:
    """Mean of one value per unit. values: `[n]`."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.asarray(values, dtype=np.float64)

    def __call__(self, indices: np.ndarray) -> float:
        return float(self.values[indices].mean())

    def differing(self, other: MeanOfUnits) -> np.ndarray:
        """`[n]`, which units two encoders score differently."""
        return np.asarray(self.values != other.values)

    def exchanged(self, other: MeanOfUnits, swaps: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return other - self with some groups exchanged between the two: swaps `[draws, groups]` -> `[draws]`."""
        sums = np.bincount(groups, self.values - other.values, minlength=swaps.shape[1])
        return np.asarray((2.0 * (swaps @ sums) - sums.sum()) / len(self.values))


class SpearmanOfUnits:
    """Spearman correlation, ranked within each resample. cosines, gold: `[n]`."""

    def __init__(self, cosines: np.ndarray, gold: np.ndarray) -> None:
        self.cosines, self.gold = metrics.dense_codes(cosines), metrics.dense_codes(gold)

    def __call__(self, indices: np.ndarray) -> float:
        return metrics.pearson(
            metrics.ranks_of_codes(self.cosines[indices]), metrics.ranks_of_codes(self.gold[indices])
        )

    def differing(self, other: SpearmanOfUnits) -> np.ndarray:
        """`[n]`, which units two encoders rank differently."""
        return np.asarray(metrics.ranks_of_codes(self.cosines) != metrics.ranks_of_codes(other.cosines))

    def exchanged(self, other: SpearmanOfUnits, swaps: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """As for `MeanOfUnits`; ranks are exchanged, since cosines of two encoders lie on different scales."""
        mine, others = metrics.ranks_of_codes(self.cosines), metrics.ranks_of_codes(other.cosines)
        gold = metrics.ranks_of_codes(self.gold)
        gold = gold - gold.mean()
        rows = swaps[:, groups]

        def correlations(ranks: np.ndarray) -> np.ndarray:
            centered = ranks - ranks.mean(axis=1, keepdims=True)
            norms = np.sqrt((centered**2).sum(axis=1) * (gold @ gold))
            return np.asarray(np.divide(centered @ gold, norms, out=np.full(len(norms), np.nan), where=norms > 0))

        return np.asarray(correlations(np.where(rows, mine, others)) - correlations(np.where(rows, others, mine)))


class BinaryOfUnits:
    """A metric of `[n]` scores against `[n]` 0/1 labels."""

    def __init__(
        self, metric: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, labels: np.ndarray
    ) -> None:
        self.metric, self.scores, self.labels = metric, scores, labels

    def __call__(self, indices: np.ndarray) -> float:
        return self.metric(self.scores[indices], self.labels[indices])

    def differing(self, other: BinaryOfUnits) -> np.ndarray:
        """`[n]`, which units two encoders rank differently."""
        return np.asarray(self._ranks() != other._ranks())

    def exchanged(self, other: BinaryOfUnits, swaps: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """As for `SpearmanOfUnits`."""
        mine, others, rows = self._ranks(), other._ranks(), swaps[:, groups]

        def scored(ranks: np.ndarray) -> np.ndarray:
            if self.metric is metrics.average_precision:
                return metrics.average_precisions(ranks, np.asarray(self.labels, dtype=np.int64))
            return np.array([self.metric(row, self.labels) for row in ranks])

        return np.asarray(scored(np.where(rows, mine, others)) - scored(np.where(rows, others, mine)))

    def _ranks(self) -> np.ndarray:
        return metrics.ranks_of_codes(metrics.dense_codes(self.scores))


class VMeasureOfUnits:
    """V-measure, mean over clusterings. labels: `[n]` codes; clusters: `[clusterings, n]`."""

    def __init__(self, labels: np.ndarray, clusters: np.ndarray) -> None:
        self.labels, self.clusters = labels, clusters

    def __call__(self, indices: np.ndarray) -> float:
        labels = self.labels[indices]
        return float(np.mean([metrics.v_measure(labels, clusters[indices]) for clusters in self.clusters]))

    def differing(self, other: VMeasureOfUnits) -> np.ndarray:
        """`[n]`, which units lie in other clusters, whatever the clusters' numbers."""
        return np.asarray(np.any(self._aligned(other) != self.clusters, axis=0))

    def exchanged(self, other: VMeasureOfUnits, swaps: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """As for `MeanOfUnits`. Clusters have no common numbers: those that share most units are exchanged.

        What the clusterings' own chance adds is drawn from the differences between clusterings.
        """
        rows = swaps[:, groups]
        each = []
        for mine, others in zip(self.clusters, self._aligned(other), strict=True):
            first, second = np.where(rows, others, mine), np.where(rows, mine, others)
            each.append(metrics.v_measures(self.labels, second) - metrics.v_measures(self.labels, first))
        differences = np.mean(each, axis=0)
        if len(each) > 1:
            plain = [
                metrics.v_measure(self.labels, others) - metrics.v_measure(self.labels, mine)
                for mine, others in zip(self.clusters, other.clusters, strict=True)
            ]
            noise = np.random.default_rng(0).normal(0, np.std(plain, ddof=1) / len(plain) ** 0.5, len(differences))
            differences = differences + np.where(swaps.any(axis=1), noise, 0.0)
        return np.asarray(differences)

    def _aligned(self, other: VMeasureOfUnits) -> np.ndarray:
        """The other's clusters, each renumbered as the one of ours that it shares most units with."""
        from scipy.optimize import linear_sum_assignment

        aligned = []
        for mine, others in zip(self.clusters, other.clusters, strict=True):
            size = int(max(mine.max(), others.max())) + 1
            shared = np.bincount(others * size + mine, minlength=size * size).reshape(size, size)
            theirs, ours = linear_sum_assignment(-shared)
            number = np.empty(size, dtype=np.int64)
            number[theirs] = ours
            aligned.append(number[others])
        return np.stack(aligned)


class SameLabelOfUnits:
    """Average precision of "the two rows share their label" by cosine, over all pairs of a drawn set of rows.

    drawn: `[m]` unit indices; vectors: `[m, dimensions]`; labels: `[m]` codes; n: number of units. A resample uses its
    first `cap` drawn rows, since pairs grow with the square; a pair of one row with itself does not count.
    """

    def __init__(self, drawn: np.ndarray, vectors: np.ndarray, labels: np.ndarray, n: int, cap: int = 500) -> None:
        self.place = np.full(n, -1)
        self.place[drawn] = np.arange(len(drawn))
        self.similarities, self.labels, self.cap = vectors @ vectors.T, labels, cap

    def __call__(self, indices: np.ndarray) -> float:
        place = self.place[indices]
        return self.of(place[place >= 0][: self.cap])

    def of(self, place: np.ndarray) -> float:
        """0..1, on these places among the drawn rows."""
        first, second = np.triu_indices(len(place), 1)
        first, second = place[first], place[second]
        apart = first != second
        first, second = first[apart], second[apart]
        same = (self.labels[first] == self.labels[second]).astype(np.int64)
        return metrics.average_precision(self.similarities[first, second], same) if len(same) else float("nan")
