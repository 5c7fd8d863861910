"""Greedy mixing: add the adapter that raises the fraction of sign difference least, while the dev score holds.

Source: Nguyen & Le 2024 (arXiv 2402.10639), section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from scions.errors import UsageError

Names = tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One set that was scored; ``kept``: whether the search continued from it."""

    members: Names
    fraction: float
    score: float
    kept: bool


@dataclass(frozen=True)
class GreedySearch:
    """The sets tried, in order; ``members`` is the last that was kept, or one name where no mixture held."""

    members: Names
    trials: tuple[Trial, ...]

    @property
    def is_mixture(self) -> bool:
        """Whether at least two adapters were combined."""
        return len(self.members) >= 2


def greedy(
    names: Sequence[str],
    fraction: Callable[[Names], float],
    score: Callable[[Names], float],
    target: str | None = None,
    holds: Callable[[float, float], bool] = lambda before, now: now >= before,
    limit: int | None = None,
) -> GreedySearch:
    """Grow a mixture from ``target``, or from the pair with the least sign difference.

    Args:
        names: all adapters.
        fraction: fraction of sign difference of a set of two or more.
        score: dev score of the mixture of a set (of one: its own); higher is better.
        target: the adapter to start from; the result is this one alone where the first addition does not hold.
        holds: ``holds(before, now)``: whether the score of a larger set is good enough to continue.
        limit: largest number of members.

    Raises:
        UsageError: fewer than two names, or a target that is not among them.
    """
    if len(names) < 2:
        raise UsageError(f"at least two adapters are needed to mix, found {len(names)}")
    if target is not None and target not in names:
        raise UsageError(f"the target {target!r} is none of the adapters: {', '.join(names)}")
    chosen: Names = (target,) if target is not None else min(combinations(names, 2), key=fraction)
    best = score(chosen)
    trials = [Trial(chosen, fraction(chosen) if len(chosen) > 1 else 0.0, best, True)]
    while len(chosen) < min(len(names), limit or len(names)):
        wider = min(((*chosen, name) for name in names if name not in chosen), key=fraction)
        now = score(wider)
        kept = holds(best, now)
        trials.append(Trial(wider, fraction(wider), now, kept))
        if not kept:
            break
        chosen, best = wider, now
    return GreedySearch(chosen, tuple(trials))
