"""What a fraction of sign difference lets one expect of a mixture, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scions.merging.signs import Signs

Pair = tuple[str, str]

# At or above this fraction two adapters are said to conflict. Of 55 pairs of eleven Houlsby adapters the 21 below kept
# 0.87 of their members' gains in the mean, the 34 above 0.48, and none lay between 0.275 and 0.283
# (benchmarks/mixing.py, stage mixtures). All begin with the same `down`, few of whose signs ever change, so that even
# adapters that have nothing in common stay well below one half.
CONFLICT = 0.28


@dataclass(frozen=True)
class Expectation:
    """Before anything is mixed: the members' set-wise fraction and the sentence that says what it means."""

    fraction: float
    sentence: str


def expectation(names: Sequence[str], signs: Signs, limit: float = CONFLICT) -> Expectation:
    """For one mixture of these adapters.

    A set differs more than its pairs do: of n independent signs, 1 - 2^(1 - n) are not unanimous. The limit for pairs
    grows by that.
    """
    allowed = limit * 2 * (1 - 2 ** (1 - len(names)))
    listed = _listed(names)
    if signs.fraction < allowed:
        sentence = f"{listed}: {signs.fraction:.2f} of the signs differ (limit {allowed:.2f}); they can be mixed"
    else:
        sentence = (
            f"{listed}: {signs.fraction:.2f} of the signs differ (limit {allowed:.2f}); they conflict, and the mixture "
            "is expected to lose much of what they gained"
        )
    return Expectation(signs.fraction, sentence)


def sentence(names: Sequence[str], fractions: Mapping[Pair, float], limit: float = CONFLICT) -> str:
    """Who can be mixed with whom: groups in which every pair lies below the limit, and who conflicts with them.

    Args:
        names: the adapters.
        fractions: of every pair, in either order.
        limit: from which on a pair conflicts.
    """

    def of(one: str, other: str) -> float:
        return fractions[(one, other)] if (one, other) in fractions else fractions[(other, one)]

    groups: list[list[str]] = [[name] for name in names]
    while True:
        joined = [
            (max(of(a, b) for a in one for b in other), i, j)
            for (i, one), (j, other) in combinations(enumerate(groups), 2)
        ]
        worst, i, j = min(joined, default=(1.0, 0, 0))
        if worst >= limit or len(groups) == 1:
            break
        groups[i] += groups.pop(j)
    told = [f"{_listed(group)} can be mixed" for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    for place, name in enumerate(alone):
        rest = [n for n in names if n != name and n not in alone[:place] and of(name, n) >= limit]
        if not rest:
            continue
        low, high = min(of(name, n) for n in rest), max(of(name, n) for n in rest)
        span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        both = "both" if len(names) == 3 else "all others"
        whom = both if 1 < len(rest) == len(names) - 1 else _listed(rest)
        told.append(f"{name} conflicts with {whom} ({span})")
    if sum(len(group) > 1 for group in groups) > 1:
        told.append("these groups conflict with each other")
    return "; ".join(told)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
