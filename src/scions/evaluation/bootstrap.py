"""Percentile bootstrap intervals of a score, of a paired difference, and of a mean over domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from scions.errors import UsageError
from scions.evaluation.scores import Evaluation


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval, all x100."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True where zero lies outside the bounds."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def signed(self) -> str:
        """A difference as ``+1.20 [+0.31, +2.11]``."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


@dataclass(frozen=True)
class PairedScore:
    """One encoder's evaluation, with intervals, beside a reference's on the same rows.

    Attributes:
        evaluation: of the encoder.
        reference: of the encoder it is compared with; None for that encoder itself.
    """

    evaluation: Evaluation
    reference: Evaluation | None = None
    _intervals: dict[str, Interval] = field(default_factory=dict, repr=False, compare=False)

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.evaluation.primary

    def interval(self, metric: str | None = None) -> Interval:
        """Return the score by ``metric`` (None: the primary one), computed once."""
        name = metric or self.metric
        if name not in self._intervals:
            self._intervals[name] = interval(self.evaluation, name)
        return self._intervals[name]

    @cached_property
    def difference(self) -> Interval | None:
        """This encoder's primary score minus the reference's; None where there is no reference."""
        return None if self.reference is None else paired_difference(self.reference, self.evaluation)


def interval(evaluation: Evaluation, metric: str | None = None, samples: int = 1000, seed: int = 0) -> Interval:
    """Return the 95 % interval of a score: percentiles over `samples` draws of units, minus the resampling bias.

    Raises UsageError for an unknown metric or fewer than one sample.
    """
    name = metric or evaluation.primary
    draws = _draws(evaluation.n, samples, seed)
    return _interval(_score(evaluation, name), [evaluation.resampled(name, indices) for indices in draws])


def paired_difference(
    base: Evaluation, other: Evaluation, metric: str | None = None, samples: int = 1000, seed: int = 0
) -> Interval:
    """Return the 95 % interval of other - base, both scored on the same units in every resample.

    Raises UsageError where the two were not scored on the same rows, or by different metrics.
    """
    name = _paired_metric(base, other, metric)
    differences = [
        other.resampled(name, indices) - base.resampled(name, indices) for indices in _draws(base.n, samples, seed)
    ]
    return _interval(_score(other, name) - _score(base, name), differences)


def two_level_difference(
    pairs: Sequence[tuple[Evaluation, Evaluation]], samples: int = 1000, seed: int = 0
) -> Interval:
    """Return the 95 % interval of the mean of other - base over domains: domains are drawn, then rows within.

    pairs: (base, other) of each domain, compared by primary metric. Drawing domains too shows how the mean would move
    with other domains of the kind.
    Raises UsageError for no pairs, or a pair scored on different rows.
    """
    if not pairs:
        raise UsageError("No domains to compare; give at least one pair of evaluations.")
    names = [_paired_metric(base, other, None) for base, other in pairs]
    rng = _generator(samples, seed)
    means = []
    for _ in range(samples):
        gains = []
        for domain in rng.integers(len(pairs), size=len(pairs)):
            (base, other), name = pairs[domain], names[domain]
            indices = rng.integers(base.n, size=base.n)
            gains.append(other.resampled(name, indices) - base.resampled(name, indices))
        means.append(float(np.mean(gains)))
    value = float(np.mean([other.scores[n] - base.scores[n] for (base, other), n in zip(pairs, names, strict=True)]))
    return _interval(value, means)


def _paired_metric(base: Evaluation, other: Evaluation, metric: str | None) -> str:
    for what, first, second in (
        ("shape", base.shape.value, other.shape.value),
        ("number of units", base.n, other.n),
        ("primary metric", base.primary, other.primary),
        ("rows", base.rows, other.rows),
    ):
        if first != second and not (what == "primary metric" and metric):
            raise UsageError(
                f"These evaluations cannot be paired: their {what} differ ({first} and {second}). "
                "Score both encoders on the same table with the same seed."
            )
    name = metric or base.primary
    _score(base, name), _score(other, name)
    return name


def _score(evaluation: Evaluation, metric: str) -> float:
    if metric not in evaluation.scores:
        raise UsageError(f"No metric {metric!r} in this evaluation; it has {', '.join(evaluation.scores)}.")
    return evaluation.scores[metric]


def _generator(samples: int, seed: int) -> np.random.Generator:
    if samples < 1:
        raise UsageError(f"A bootstrap needs at least 1 sample, not {samples}; 1000 is usual.")
    return np.random.default_rng(seed)


def _draws(n: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    rng = _generator(samples, seed)
    for _ in range(samples):
        yield rng.integers(n, size=n)


def _interval(value: float, resampled: list[float]) -> Interval:
    # A resample may leave a metric undefined (one class only); those are left out.
    defined = [x for x in resampled if not np.isnan(x)]
    if not defined:
        return Interval(value, float("nan"), float("nan"))
    # Repeated rows raise some metrics (a row clusters perfectly with its copy), which would push the bounds past the
    # value itself; the mean of the resamples shows by how much, and that is subtracted.
    low, high = np.percentile(defined, [2.5, 97.5]) - (np.mean(defined) - value)
    return Interval(value, float(low), float(high))
