"""Verdict on a trained adapter: better than its base, no measurable difference, or worse, on held-out rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from scions.deprecation import warn
from scions.evaluation import Difference, Evaluation, Interval, PairedScore, interval, paired_difference
from scions.evaluation.reindex_cost import Reindexing

# Below this drift the summary warns: the adapter ranks general pairs visibly differently from the base.
LOW_DRIFT = 90.0
SATURATED = 99.0  # a base score from which on nothing is left to gain
FEWEST_DOCUMENTS = 50  # five times the ten documents that the primary metric looks at
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
        outcome: ``better``, ``no measurable difference`` or ``worse``: see `Difference.direction`; ``forgets too
            much``: not worse, but beyond the limit on general loss.
        metric: the metric that decided; all values are x100.
        difference: adapter minus base, the same rows resampled together.
        metrics: ``(name, base, adapter)`` of every metric shown.
        general: ``metric``, ``before``, ``after`` and ``difference`` on a general set; None where none was given.
        drift: Spearman x100 between the base's and the adapter's similarities of general pairs; None where a general
            set was given.
        baselines: scores of the linear map, full fine-tuning or a two-sided adapter on the same rows.
        ahead: name of the baseline that is measurably better than the adapter, by the most; None where none is.
        limits: what these rows cannot show, as sentences.
        reindexing: of a query-side training: its gain, and gain and cost of embedding every document anew.
    """

    outcome: str
    metric: str
    base: Interval
    adapter: Interval
    difference: Difference
    metrics: list[tuple[str, Interval, Interval]]
    general: dict[str, Any] | None = None
    drift: float | None = None
    baselines: dict[str, Interval] = field(default_factory=dict)
    ahead: str | None = None
    limits: list[str] = field(default_factory=list)
    reindexing: Reindexing | None = None

    @property
    def refused(self) -> bool:
        """Whether the adapter is published only with ``force=True``."""
        return self.outcome in (WORSE, FORGETS)

    @property
    def rivals(self) -> dict[str, Interval]:
        """The old name of ``baselines``."""
        warn("Verdict.rivals is deprecated; use Verdict.baselines")
        return self.baselines

    @property
    def general_loss(self) -> float | None:
        """Points lost on the general set, else 100 minus drift; None where neither is known."""
        if self.general is not None:
            return float(self.general["before"]["value"] - self.general["after"]["value"])
        return None if self.drift is None else 100.0 - self.drift

    @property
    def summary(self) -> str:
        """The verdict as a sentence."""
        figures = f"{self.metric} {self.base.value:.2f} → {self.adapter.value:.2f} ({self.difference.value:+.2f}"
        figures += (
            f", 95 % interval {self.difference.low:+.2f} to {self.difference.high:+.2f}, {self.difference.p_text})"
        )
        words = {
            BETTER: "Better: the adapter beats the base on held-out rows",
            SAME: "No measurable difference: held-out rows cannot tell the adapter from the base",
            WORSE: "Worse: the base beats the adapter on held-out rows",
            FORGETS: f"Forgets too much: general text lost {self.general_loss or 0:.2f} points, more than "
            "`max_general_loss=...` allows. On held-out rows",
        }
        sentence = f"{words[self.outcome]}: {figures}."
        if self.ahead is not None:
            sentence += f" A {self.ahead} does better still: {self.baselines[self.ahead].value:.2f}."
        return " ".join([sentence + self._general_loss(), *self.limits])

    def _general_loss(self) -> str:
        if self.outcome == FORGETS:
            return ""  # the sentence says it
        if self.general is not None and self.general["worse"]:
            before, after = self.general["before"]["value"], self.general["after"]["value"]
            metric = self.general["metric"]
            return (
                f" But general text suffered: {metric} {before:.2f} → {after:.2f} (training with general texts helps)."
            )
        if self.drift is not None and self.drift < LOW_DRIFT:
            return f" But general similarities changed: drift {self.drift:.1f} (100: unchanged)."
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as the manifest has it, intervals as ``value``, ``low``, ``high``."""
        return {
            "outcome": self.outcome,
            "metric": self.metric,
            "difference": asdict(self.difference),
            "metrics": {name: {"base": asdict(b), "adapter": asdict(a)} for name, b, a in self.metrics},
            "general": self.general,
            "drift": self.drift,
            "rivals": {name: asdict(value) for name, value in self.baselines.items()},
            **({} if self.reindexing is None else {"reindexing": self.reindexing.to_dict()}),
            "limits": self.limits,
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
    """Judge an adapter from evaluations on the same rows (paired bootstrap, 1000 samples).

    Args:
        base: of the bare base.
        adapter: of the published adapter, reloaded.
        general: base and adapter on a general set.
        drift: see `Verdict`.
        baselines: their evaluations.
        max_general_loss: limit on `Verdict.general_loss`.
    """
    before, after, difference = PairedScore(base), PairedScore(adapter), paired_difference(base, adapter)
    outcome = {1: BETTER, 0: SAME, -1: WORSE}[difference.direction]
    gains = {name: paired_difference(adapter, evaluation) for name, evaluation in (baselines or {}).items()}
    ahead = max((name for name in gains if gains[name].direction > 0), key=lambda n: gains[n].value, default=None)
    names = [m for m in _SHOWN.get(base.shape.value, _RETRIEVAL) if m in base.scores and m in adapter.scores]
    verdict = Verdict(
        outcome=outcome,
        metric=base.primary,
        base=before.interval(),
        adapter=after.interval(),
        difference=difference,
        metrics=[(name, before.interval(name), after.interval(name)) for name in names],
        general=None if general is None else _general(*general),
        drift=drift,
        baselines={name: interval(evaluation) for name, evaluation in (baselines or {}).items()},
        ahead=ahead,
        limits=_limits(base, difference),
    )
    lost = verdict.general_loss
    if outcome != WORSE and max_general_loss is not None and lost is not None and lost > max_general_loss:
        return replace(verdict, outcome=FORGETS)
    return verdict


def _limits(base: Evaluation, difference: Difference) -> list[str]:
    sentences = [difference.limits] if difference.limits else []
    if base.value >= SATURATED:
        sentences.append(f"The base has {base.value:.1f} of 100 already: these rows are too easy to show a gain.")
    if base.documents is not None and base.documents < FEWEST_DOCUMENTS:
        sentences.append(
            f"Each query chooses among {base.documents} documents only; with fewer than {FEWEST_DOCUMENTS} most "
            "rankings are good by chance."
        )
    return sentences


def _general(base: Evaluation, adapter: Evaluation) -> dict[str, Any]:
    difference = paired_difference(base, adapter)
    return {
        "metric": base.primary,
        "before": asdict(interval(base)),
        "after": asdict(interval(adapter)),
        "difference": asdict(difference),
        "worse": difference.direction < 0,
    }
