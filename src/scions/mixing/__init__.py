"""Compare, select, mix and prune adapters."""

from __future__ import annotations

from scions.mixing.compare import Comparison, PairComparison, compare
from scions.mixing.mix import Mixture, mix
from scions.mixing.prune import Pruning, prune
from scions.mixing.select import Selection, select

__all__ = ["Comparison", "Mixture", "PairComparison", "Pruning", "Selection", "compare", "mix", "prune", "select"]
