"""Weights of a mixture's members by their training domains."""

from __future__ import annotations

import numpy as np
import pytest

from scions.errors import UsageError
from scions.mixing.domain_weights import cluster_shares, cluster_weights, similarity_weights
from scions.routing.domains import Domains

AXES = np.eye(4)


def domains(*means, variance=0.01):
    return Domains(tuple("abc"[: len(means)]), np.array(means, dtype=float), variance)


TWO = domains((0.8, 0, 0, 0), (0, 0.8, 0, 0))


def test_similarity_weights_are_in_proportion_to_the_mean_cosine():
    # Mean cosines of the four texts: 0.8 * 3/4 and 0.8 * 1/4.
    assert similarity_weights(AXES[[0, 0, 0, 1]], TWO) == pytest.approx([0.75, 0.25])


def test_a_domain_on_the_other_side_gets_no_weight():
    assert similarity_weights(AXES[[0, 0]], domains((0.8, 0, 0, 0), (-0.5, 0.5, 0, 0))) == [1.0, 0.0]


def test_cluster_weights_are_the_shares_of_texts():
    assert cluster_weights(AXES[[0] * 6 + [1] * 2], TWO) == pytest.approx([0.75, 0.25], abs=1e-3)


def test_a_domain_with_hardly_a_text_gets_no_weight():
    weights = cluster_weights(AXES[[0] * 199 + [1]], TWO)
    assert weights == [1.0, 0.0]


def test_cluster_shares_count_texts_of_no_domain_first():
    shares = cluster_shares(AXES[[0] * 5 + [1] * 3 + [3] * 2], TWO)
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=1e-3)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [(similarity_weights, "is similar to the texts"), (cluster_weights, "the texts fall to none")],
)
def test_texts_of_no_domain_give_no_weights(weights, message):
    with pytest.raises(UsageError, match=message):
        weights(-AXES[[0, 1]], TWO)
