"""Better, no measurable difference, or worse: what a training came to, on rows that chose nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from scions.errors import UsageError
from scions.evaluation import Evaluation, Interval, interval, paired_difference

if TYPE_CHECKING:
    from scions.evaluation.reindex_cost import Reindexing

# Below this the adapter orders general pairs visibly otherwise than the base, and the verdict says so.
LOW_DRIFT = 90.0
BETTER, SAME, WORSE, FORGETS = "better", "no measurable difference", "worse", "forgets too much"
_SHOWN = {
    "scored": ("spearman",),
    "binary": ("average_precision", "roc_auc"),
    "labelled": ("v_measure", "few_shot_accuracy"),
    "candidates": ("map", "mrr", "ndcg@10"),
    "texts": ("halves_ndcg@10",),
}
_RETRIEVAL = ("ndcg@10", "mrr@10", "recall@10")


@dataclass(frozen=True)
class Verdict:
    """Base against adapter on the domain's test rows.

    Attributes:
        outcome: ``better``, ``no measurable difference`` or ``worse``: whether the 95 % interval of the paired
            difference lies above, around or below 0; ``forgets too much``: not worse, but beyond the limit on general
            loss.
        metric: the metric that decided; all values are x100.
        difference: adapter minus base, the same rows resampled together.
        metrics: ``(name, base, adapter)`` of every metric shown.
        general: the same on a general set, where one was given: ``metric``, ``before``, ``after``, ``difference``.
        drift: Spearman x100 between the base's and the adapter's similarities of general pairs, where none was.
        baselines: scores of the linear map, full fine-tuning or a two-sided adapter on the same rows.
        reindexing: of a query-side training: its gain, that of embedding every document anew, and what that costs.
    """

    outcome: str
    metric: str
    base: Interval
    adapter: Interval
    difference: Interval
    metrics: list[tuple[str, Interval, Interval]]
    general: dict[str, Any] | None = None
    drift: float | None = None
    baselines: dict[str, Interval] = field(default_factory=dict)
    reindexing: Reindexing | None = None

    @property
    def refused(self) -> bool:
        """Whether it is published only when forced."""
        return self.outcome in (WORSE, FORGETS)

    @property
    def general_loss(self) -> float | None:
        """What general text lost: points of the general set's metric, else of drift; None where neither is known."""
        if self.general is not None:
            return float(self.general["before"]["value"] - self.general["after"]["value"])
        return None if self.drift is None else 100.0 - self.drift

    @property
    def summary(self) -> str:
        """The verdict as a sentence."""
        figures = f"{self.metric} {self.base.value:.2f} → {self.adapter.value:.2f} ({self.difference.value:+.2f}"
        figures += f", 95 % interval {self.difference.low:+.2f} to {self.difference.high:+.2f})"
        words = {
            BETTER: "Better: the adapter beats the base on held-out rows",
            SAME: "No measurable difference: held-out rows cannot tell the adapter from the base",
            WORSE: "Worse: the base beats the adapter on held-out rows",
            FORGETS: f"Forgets too much: general text lost {self.general_loss or 0:.2f} points, more than "
            "--max-general-loss allows. On held-out rows",
        }
        sentence = f"{words[self.outcome]}: {figures}."
        best = max(self.baselines.items(), key=lambda item: item[1].value, default=None)
        if best is not None and best[1].value > self.adapter.value:
            sentence += f" A {best[0]} does better still: {best[1].value:.2f}."
        return sentence + self._general_loss()

    def _general_loss(self) -> str:
        if self.outcome == FORGETS:
            return ""  # said already
        if self.general is not None and self.general["difference"]["high"] < 0:
            before, after = self.general["before"]["value"], self.general["after"]["value"]
            return (
                f" But general text suffered: {self.general['metric']} {before:.2f} → {after:.2f} "
                "(--general-texts holds on to it)."
            )
        if self.drift is not None and self.drift < LOW_DRIFT:
            return f" But general similarities are not what they were: drift {self.drift:.1f} (100: unchanged)."
        return ""

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: intervals as ``value``, ``low``, ``high``."""
        return {
            "outcome": self.outcome,
            "metric": self.metric,
            "difference": asdict(self.difference),
            "metrics": {name: {"base": asdict(b), "adapter": asdict(a)} for name, b, a in self.metrics},
            "general": self.general,
            "drift": self.drift,
            "rivals": {name: asdict(value) for name, value in self.baselines.items()},
            **({} if self.reindexing is None else {"reindexing": self.reindexing.to_dict()}),
            "summary": self.summary,
        }


def judge(
    base: Evaluation,
    adapter: Evaluation,
    *,
    general: tuple[Evaluation, Evaluation] | None = None,
    drift: float | None = None,
    baselines: dict[str, Evaluation] | None = None,
    max_general_loss: float | None = None,
) -> Verdict:
    """Draw the verdict from evaluations on the same rows (paired bootstrap, 1000 samples).

    Args:
        base: of the bare base.
        adapter: of the published adapter, reloaded.
        general: base and adapter on a general set.
        drift: see `Verdict`.
        baselines: evaluations of these on the same rows.
        max_general_loss: the most that `Verdict.general_loss` may be.
    """
    difference = paired_difference(base, adapter)
    outcome = BETTER if difference.low > 0 else WORSE if difference.high < 0 else SAME
    shown = _SHOWN.get(base.shape.value, _RETRIEVAL)
    metrics = [(m, interval(base, m), interval(adapter, m)) for m in shown if m in base.scores and m in adapter.scores]
    verdict = Verdict(
        outcome,
        base.primary,
        interval(base),
        interval(adapter),
        difference,
        metrics,
        _general(general),
        drift,
        {name: interval(evaluation) for name, evaluation in (baselines or {}).items()},
    )
    lost = verdict.general_loss
    if outcome != WORSE and max_general_loss is not None and lost is not None and lost > max_general_loss:
        return replace(verdict, outcome=FORGETS)
    return verdict


def check_loss(most: float | None, measurable: Callable[[], object]) -> None:
    """Raise UsageError where a limit on general loss is no number of points, or nothing could be held against it.

    Args:
        most: the limit, or None.
        measurable: asked where there is a limit: whether there is text to measure the loss on.
    """
    if most is None:
        return
    if not 0 <= most <= 100:
        raise UsageError(f"--max-general-loss is in points from 0 to 100, got {most:g}")
    if not measurable():
        raise UsageError(
            "--max-general-loss: there is nothing to measure it on, since the built-in pairs (docstrings of Python's "
            "own library) are not to be had here; give --general"
        )


def _general(pair: tuple[Evaluation, Evaluation] | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    before, after = pair
    return {
        "metric": before.primary,
        "before": asdict(interval(before)),
        "after": asdict(interval(after)),
        "difference": asdict(paired_difference(before, after)),
    }
