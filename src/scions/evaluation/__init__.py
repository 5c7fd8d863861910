"""Score anything with `.encode`: metrics, 95 % intervals, differences and the verdict."""

from __future__ import annotations

from scions.deprecation import renamed_names
from scions.evaluation.bootstrap import (
    Difference,
    Interval,
    PairedScore,
    interval,
    paired_difference,
    two_level_difference,
)
from scions.evaluation.drift import drift, drift_of
from scions.evaluation.encoders import CachedEncoder, Encoder
from scions.evaluation.scores import Evaluation
from scions.evaluation.sts import STS_TASKS, evaluate_sts
from scions.evaluation.tasks import dev_score, evaluate

__all__ = [
    "STS_TASKS",
    "CachedEncoder",
    "Difference",
    "Encoder",
    "Evaluation",
    "Interval",
    "PairedScore",
    "dev_score",
    "drift",
    "drift_of",
    "evaluate",
    "evaluate_sts",
    "interval",
    "paired_difference",
    "two_level_difference",
]

__getattr__ = renamed_names(
    __name__,
    Remembering="scions.evaluation.CachedEncoder",
    LinearMap="scions.training.baselines.linear_map.LinearMap",
    fit_linear_map="scions.training.baselines.linear_map.fit_linear_map",
)
