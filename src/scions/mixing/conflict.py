"""Put in words what a fraction of sign difference predicts of a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scions.merging.signs import Signs

Pair = tuple[str, str]

# Two adapters conflict from this fraction on. Of 55 pairs of eleven Houlsby adapters the 21 below kept 0.87 of their
# members' gains on average, the 34 above 0.48, and none lay between 0.275 and 0.283 (benchmarks/mixing.py, stage
# mixtures). All start from the same `down`, few of whose signs change, so even unrelated adapters stay below one half.
CONFLICT = 0.28


@dataclass(frozen=True)
class Expectation:
    """What the signs of a mixture's members predict: their fraction of sign difference, and a sentence about it."""

    fraction: float
    sentence: str


def expect(names: Sequence[str], signs: Signs, limit: float = CONFLICT) -> Expectation:
    """Return what the signs predict of a mixture of these adapters.

    Of n independent signs, 1 - 2^(1 - n) are not unanimous, so the limit for pairs grows by that for a set.
    """
    allowed = limit * 2 * (1 - 2 ** (1 - len(names)))
    conflict = "they conflict, and the mixture is expected to lose much of what they gained"
    result = "they can be mixed" if signs.fraction < allowed else conflict
    figures = f"{signs.fraction:.2f} of the signs differ (limit {allowed:.2f})"
    return Expectation(signs.fraction, f"{_listed(names)}: {figures}; {result}")


def describe_groups(names: Sequence[str], fractions: Mapping[Pair, float], limit: float = CONFLICT) -> str:
    """Return a sentence on groups that can be mixed, every pair below the limit, and on adapters that conflict.

    ``fractions`` are those of every pair, in either order.
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
    parts = [f"{_listed(group)} can be mixed" for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    for place, name in enumerate(alone):
        rest = [n for n in names if n != name and n not in alone[:place] and of(name, n) >= limit]
        if not rest:
            continue
        low, high = min(of(name, n) for n in rest), max(of(name, n) for n in rest)
        span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        both = "both" if len(names) == 3 else "all others"
        whom = both if 1 < len(rest) == len(names) - 1 else _listed(rest)
        parts.append(f"{name} conflicts with {whom} ({span})")
    if sum(len(group) > 1 for group in groups) > 1:
        parts.append("these groups conflict with each other")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
