"""Means and TIES on figures one can follow."""

from __future__ import annotations

import pytest
import torch

from scions.errors import UsageError
from scions.merging.averaging import average, normalized
from scions.merging.ties import ties


def one(*values: float):
    return {"w": torch.tensor(values)}


def test_the_mean_and_the_weighted_mean():
    assert average([one(1, 4), one(3, 0)], [1, 1])["w"].tolist() == [2, 2]
    assert average([one(1, 4), one(3, 0)], [3, 1])["w"].tolist() == [1.5, 3]


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_are_none(weights):
    with pytest.raises(UsageError, match="weights"):
        normalized(weights, 2)


def test_ties_trims_elects_and_merges():
    # Differences from the start 1: [4, -1, 2, 0.1] and [2, 3, -1, 0.2]. Half of each stays: [4, 0, 2, 0], [2, 3, 0, 0].
    start = one(1, 1, 1, 1)
    members = [one(5, 0, 3, 1.1), one(3, 4, 0, 1.2)]
    assert ties(members, start, density=0.5)["w"].tolist() == [4, 4, 3, 1]


def test_ties_leaves_out_who_is_outvoted():
    # Of the third coordinate's 4 and -1, the larger sum elects the sign, and only what agrees is averaged.
    found = ties([one(4, 2), one(-1, 4)], one(0, 0), density=1.0)["w"]
    assert found.tolist() == [4, 3]


def test_ties_averages_what_has_no_start():
    members = [one(4) | {"norm": torch.tensor([1.0])}, one(2) | {"norm": torch.tensor([3.0])}]
    assert ties(members, one(0), density=1.0)["norm"].tolist() == [2]


def test_ties_keeps_a_share():
    with pytest.raises(UsageError, match="found 0"):
        ties([one(1), one(2)], one(0), density=0)
