"""Scores of an encoder, with results per unit from which resamples are scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
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
    """

    shape: Shape
    primary: str
    n: int
    scores: dict[str, float]
    units: dict[str, Recompute] = field(default_factory=dict, repr=False)
    rows: str = field(default="", repr=False)

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
) -> Evaluation:
    """Return an Evaluation scored on all units, except metrics whose value (0 to 1) is in `full`."""
    every = np.arange(len(texts))
    known = full or {}
    scores = {name: 100.0 * (known[name] if name in known else units[name](every)) for name in units}
    return Evaluation(shape, primary, len(texts), scores, units, _hash(texts))


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


class SpearmanOfUnits:
    """Spearman correlation, ranked within each resample. cosines, gold: `[n]`."""

    def __init__(self, cosines: np.ndarray, gold: np.ndarray) -> None:
        self.cosines, self.gold = metrics.dense_codes(cosines), metrics.dense_codes(gold)

    def __call__(self, indices: np.ndarray) -> float:
        return metrics.pearson(
            metrics.ranks_of_codes(self.cosines[indices]), metrics.ranks_of_codes(self.gold[indices])
        )


class BinaryOfUnits:
    """A metric of `[n]` scores against `[n]` 0/1 labels."""

    def __init__(
        self, metric: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, labels: np.ndarray
    ) -> None:
        self.metric, self.scores, self.labels = metric, scores, labels

    def __call__(self, indices: np.ndarray) -> float:
        return self.metric(self.scores[indices], self.labels[indices])


class VMeasureOfUnits:
    """V-measure, mean over clusterings. labels: `[n]` codes; clusters: `[clusterings, n]`."""

    def __init__(self, labels: np.ndarray, clusters: np.ndarray) -> None:
        self.labels, self.clusters = labels, clusters

    def __call__(self, indices: np.ndarray) -> float:
        labels = self.labels[indices]
        return float(np.mean([metrics.v_measure(labels, clusters[indices]) for clusters in self.clusters]))


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
