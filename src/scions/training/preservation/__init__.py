"""Adapting without forgetting: what matters for general knowledge moves less, and general texts keep their vectors."""

from scions.training.preservation.importance import Importance, measure_importance
from scions.training.preservation.preserver import Preserver

__all__ = ["Importance", "Preserver", "measure_importance"]
