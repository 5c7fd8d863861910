"""Preserve general knowledge while adapting: distillation on general texts, a soft mask, a contrast."""

from scions.training.preservation.importance import Importance, measure_importance
from scions.training.preservation.preserver import Preserver

__all__ = ["Importance", "Preserver", "measure_importance"]
