"""Bootstrap intervals of a score, of a paired difference, and of a mean over domains.

Groups of units are drawn, since only they are independent. The bounds are percentiles of the resamples (Efron 1979).
Two exceptions: where repeated units raise the metric (v-measure) the resampling bias is subtracted, on a scale that
keeps the bounds inside the metric's range; and where all resamples agree the open side follows the rule of three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from scions.errors import UsageError
from scions.evaluation.paired_test import FEWEST_GROUPS, randomization_test
from scions.evaluation.scores import Evaluation, VMeasureOfUnits


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
class Difference(Interval):
    """The difference of two encoders on the same rows: its interval, and a randomization test beside it.

    `direction` is the one rule by which two encoders are said to differ.

    Attributes:
        p: two-sided, of `scions.evaluation.paired_test.randomization_test`.
        groups: independent groups of rows.
        differing: groups that the two do not score alike.
        detectable: smallest true difference that these rows would show in four of five cases, x100.
    """

    p: float = float("nan")
    groups: int = 0
    differing: int = 0
    detectable: float = float("nan")

    @property
    def direction(self) -> int:
        """1: better, -1: worse, 0: cannot be told. Interval and test must agree on at least 6 groups."""
        if self.groups < FEWEST_GROUPS or not self.p <= 0.05:
            return 0
        return 1 if self.low > 0 and self.value > 0 else -1 if self.high < 0 and self.value < 0 else 0

    @property
    def p_text(self) -> str:
        """``p = 0.013``, or ``p < 0.001``; ``p undefined`` where the metric is."""
        if np.isnan(self.p):
            return "p undefined"
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"

    @property
    def signed(self) -> str:
        """The difference as ``+1.20 [+0.31, +2.11], p = 0.013``."""
        return super().signed if np.isnan(self.p) else f"{super().signed}, {self.p_text}"

    @property
    def limits(self) -> str:
        """What the rows cannot show, as a sentence; empty where they decide."""
        if self.direction:
            return ""
        if self.groups < FEWEST_GROUPS:
            return (
                f"{self.groups} independent groups of rows decide nothing; {FEWEST_GROUPS} are the least that can, "
                "some hundred are usual."
            )
        if np.isnan(self.p):
            return "The metric is undefined on these rows."
        if not self.differing:
            return "Nothing differs on these rows."
        return f"These rows would show a difference of about {self.detectable:.1f} or more."


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
    def difference(self) -> Difference | None:
        """This encoder's primary score minus the reference's; None where there is no reference."""
        return None if self.reference is None else paired_difference(self.reference, self.evaluation)


def interval(evaluation: Evaluation, metric: str | None = None, samples: int = 1000, seed: int = 0) -> Interval:
    """Return the 95 % interval of a score over `samples` draws of groups of units.

    Raises UsageError for an unknown metric or fewer than one sample.
    """
    name = metric or evaluation.primary
    value = _score(evaluation, name)
    resampled = [evaluation.resampled(name, indices) for indices in _draws(evaluation.group_codes, samples, seed)]
    low, high = _bounds(value, resampled, _flattered(evaluation, name), _lowest(name), _groups(evaluation))
    return Interval(value, low, high)


def paired_difference(
    base: Evaluation, other: Evaluation, metric: str | None = None, samples: int = 1000, seed: int = 0
) -> Difference:
    """Compare other with base on the same units: 95 % interval of other - base, and a randomization test.

    Raises UsageError where the two were not scored on the same rows, or by different metrics.
    """
    name = _paired_metric(base, other, metric)
    codes = base.group_codes
    differences = [
        other.resampled(name, indices) - base.resampled(name, indices) for indices in _draws(codes, samples, seed)
    ]
    value = _score(other, name) - _score(base, name)
    widest = 100.0 - _lowest(name)
    low, high = _bounds(value, differences, _flattered(base, name), -widest, _groups(base), widest)
    if not hasattr(base.units[name], "exchanged"):
        return Difference(value, low, high, groups=_groups(base))
    test = randomization_test(base.units[name], other.units[name], codes, seed)
    return Difference(value, low, high, test.p, test.groups, test.differing, test.detectable)


def two_level_difference(
    pairs: Sequence[tuple[Evaluation, Evaluation]], samples: int = 1000, seed: int = 0
) -> Interval:
    """Return the 95 % interval of the mean of other - base over domains, by Student's t on the domains' differences.

    The domains are the independent units: how far their differences scatter holds what other domains of the kind, and
    other rows, would change. Drawing five domains with replacement is too narrow (its lower bound lies above 0 in 8 %
    of cases without a difference).

    pairs: (base, other) of each domain, compared by primary metric.
    Raises UsageError for no pairs, or a pair scored on different rows.
    """
    if not pairs:
        raise UsageError("No domains to compare; give at least one pair of evaluations.")
    names = [_paired_metric(base, other, None) for base, other in pairs]
    gains = np.array([other.scores[n] - base.scores[n] for (base, other), n in zip(pairs, names, strict=True)])
    value = float(gains.mean())
    if len(gains) == 1:
        one = paired_difference(*pairs[0], samples=samples, seed=seed)
        return Interval(value, one.low, one.high)
    from scipy.stats import t

    wide = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)
    return Interval(value, value - wide, value + wide)


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


def _draws(groups: np.ndarray, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield unit indices of as many groups as there are, drawn with replacement."""
    rng = _generator(samples, seed)
    count = int(groups.max()) + 1 if len(groups) else 0
    if count == len(groups):
        order = np.argsort(groups)
        for _ in range(samples):
            yield order[rng.integers(count, size=count)]
        return
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    for _ in range(samples):
        drawn = rng.integers(count, size=count)
        within = np.arange(sizes[drawn].sum()) - np.repeat(np.cumsum(sizes[drawn]) - sizes[drawn], sizes[drawn])
        yield order[np.repeat(starts[drawn], sizes[drawn]) + within]


def _bounds(
    value: float, resampled: list[float], flattered: bool, lowest: float, groups: int, highest: float = 100.0
) -> tuple[float, float]:
    # A resample may leave a metric undefined (one class only); those are left out.
    defined = np.array([x for x in resampled if not np.isnan(x)])
    if not len(defined) or np.isnan(value):
        return float("nan"), float("nan")
    if flattered:
        # A row clusters perfectly with its copy, so resamples score higher than the value; the mean says by how much.
        # Subtracted on the logit scale, so that no bound leaves the range.
        def logit(x: np.ndarray) -> np.ndarray:
            share = np.clip((x - lowest) / (highest - lowest), 1e-6, 1 - 1e-6)
            return np.log(share / (1 - share))

        scaled = logit(defined)
        scaled += logit(np.array([value])) - scaled.mean()
        defined = lowest + (highest - lowest) / (1 + np.exp(-scaled))
    low, high = (float(x) for x in np.percentile(defined, [2.5, 97.5]))
    if high - low < 1e-9:
        # All resamples agree: units that were not seen may still differ, at most 3 of n (rule of three).
        unseen = min(1.0, 3 / max(groups, 1))
        return value - unseen * (value - lowest), value + unseen * (highest - value)
    return low, high


def _flattered(evaluation: Evaluation, metric: str) -> bool:
    return isinstance(evaluation.units.get(metric), VMeasureOfUnits)


def _lowest(metric: str) -> float:
    return -100.0 if metric == "spearman" else 0.0


def _groups(evaluation: Evaluation) -> int:
    return int(evaluation.group_codes.max()) + 1 if evaluation.n else 0
