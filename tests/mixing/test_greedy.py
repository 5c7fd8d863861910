"""The order in which greedy mixing tries, and where it stops."""

from __future__ import annotations

import pytest

from scions.errors import UsageError
from scions.mixing.greedy import greedy

FRACTIONS = {"ab": 0.1, "ac": 0.2, "bc": 0.3, "ad": 0.4, "bd": 0.4, "cd": 0.4}


def fraction(names):
    return max(
        FRACTIONS["".join(sorted(pair))] for i, a in enumerate(names) for pair in [(a, b) for b in names[i + 1 :]]
    )


def scores(**table):
    return lambda names: table["".join(sorted(names))]


def test_begins_with_the_closest_pair_and_goes_on_while_the_score_holds():
    found = greedy("abcd", fraction, scores(ab=1, abc=2, abcd=1.5))
    assert found.members == ("a", "b", "c")
    assert [(t.members, t.kept) for t in found.trials] == [
        (("a", "b"), True),
        (("a", "b", "c"), True),
        (("a", "b", "c", "d"), False),
    ]


def test_stops_at_the_first_fall():
    found = greedy("abcd", fraction, scores(ab=2, abc=1))
    assert found.members == ("a", "b")
    assert found.is_mixture


def test_begins_with_the_target_and_says_when_none_helps():
    found = greedy("abc", fraction, scores(c=5, ac=4), target="c")
    assert not found.is_mixture
    assert found.members == ("c",)
    assert found.trials[1].members == ("c", "a")  # of its neighbours the one that conflicts least


def test_a_loss_may_be_allowed():
    found = greedy(
        "abc", fraction, scores(c=5, ac=4.8, abc=3), target="c", holds=lambda before, now: now > before - 0.5
    )
    assert found.members == ("c", "a")


def test_at_most_so_many():
    assert greedy("abcd", fraction, lambda names: len(names), limit=2).members == ("a", "b")


def test_a_target_that_is_not_there():
    with pytest.raises(UsageError, match="the target 'x' is none of the adapters: a, b"):
        greedy("ab", fraction, len, target="x")
    with pytest.raises(UsageError, match="at least two"):
        greedy("a", fraction, len)
