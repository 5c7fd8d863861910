"""Metrics over anything with `.encode`, with intervals that say how sure they are."""

from __future__ import annotations

from scions.evaluation.bootstrap import Interval, interval, paired_difference, two_level_difference
from scions.evaluation.encoding import Encoder, Remembering
from scions.evaluation.linear_map import LinearMap, fit_linear_map
from scions.evaluation.outcome import Evaluation
from scions.evaluation.similarity_drift import drift, drift_of
from scions.evaluation.sts import STS_TASKS, evaluate_sts
from scions.evaluation.tasks import dev_score, evaluate

__all__ = [
    "STS_TASKS",
    "Encoder",
    "Evaluation",
    "Interval",
    "LinearMap",
    "Remembering",
    "dev_score",
    "drift",
    "drift_of",
    "evaluate",
    "evaluate_sts",
    "fit_linear_map",
    "interval",
    "paired_difference",
    "two_level_difference",
]
