from __future__ import annotations

import doctest

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from scions.evaluation import metrics, split_halves


@pytest.mark.parametrize("module", [metrics, split_halves])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


values = st.lists(st.integers(0, 6), min_size=4, max_size=40)


@settings(max_examples=50, deadline=None)
@given(values, st.integers(0, 1000))
def test_against_scipy_and_sklearn_with_ties(first, seed):
    rng = np.random.default_rng(seed)
    scores, gold = np.array(first) / 7, rng.integers(0, 5, len(first))
    labels, clusters = rng.integers(0, 2, len(first)), rng.integers(0, 3, len(first))
    if len(set(first)) > 1 and len(set(gold.tolist())) > 1:
        assert metrics.spearman(scores, gold) == pytest.approx(scipy.stats.spearmanr(scores, gold).statistic)
    if len(set(labels.tolist())) > 1:
        expected = sklearn.metrics.average_precision_score(labels, scores)
        assert metrics.average_precision(scores, labels) == pytest.approx(expected)
        assert metrics.roc_auc(scores, labels) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    assert metrics.v_measure(gold, clusters) == pytest.approx(sklearn.metrics.v_measure_score(gold, clusters), abs=1e-9)


def test_ndcg_against_sklearn_on_a_full_ranking():
    rng = np.random.default_rng(0)
    grades, scores = rng.integers(0, 4, (5, 30)).astype(float), rng.random((5, 30))
    ranked = np.take_along_axis(grades, np.argsort(-scores, axis=1), axis=1)
    ideal = -np.sort(-grades, axis=1)
    expected = [sklearn.metrics.ndcg_score(g[None], s[None], k=10) for g, s in zip(grades, scores, strict=True)]
    assert metrics.ndcg_at_k(ranked, ideal, 10) == pytest.approx(expected)


def test_undefined_is_nan_not_a_number_that_looks_good():
    assert np.isnan(metrics.spearman(np.ones(3), np.arange(3)))
    assert np.isnan(metrics.average_precision(np.arange(3.0), np.zeros(3, dtype=int)))
    assert np.isnan(metrics.roc_auc(np.arange(3.0), np.ones(3, dtype=int)))
