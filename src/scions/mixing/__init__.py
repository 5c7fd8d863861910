"""What several adapters have to do with each other: compare, select, mix, prune."""

from __future__ import annotations

from scions.mixing.comparison import Comparison, PairComparison, compare
from scions.mixing.pruning import Pruning, prune
from scions.mixing.selection import Selection, select
from scions.mixing.soup import Mixture, mix

__all__ = ["Comparison", "Mixture", "PairComparison", "Pruning", "Selection", "compare", "mix", "prune", "select"]
