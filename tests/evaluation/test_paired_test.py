"""Randomization tests, and what is said of a difference."""

from __future__ import annotations

import numpy as np
import pytest

from scions.data.shapes import Shape
from scions.evaluation import Evaluation, metrics, paired_difference
from scions.evaluation.paired_test import holm, randomization_test
from scions.evaluation.scores import BinaryOfUnits, MeanOfUnits, SpearmanOfUnits, VMeasureOfUnits, concluded


def evaluation(unit, n, groups=None, metric="m"):
    return concluded(Shape.PAIRS, metric, {metric: unit}, [str(i) for i in range(n)], groups=groups)


def means(values, groups=None):
    return evaluation(MeanOfUnits(np.asarray(values, dtype=float)), len(values), groups)


def changed(n, count, by=0.5):
    """Means of two encoders that differ in ``count`` rows, all upwards."""
    base = np.full(n, 0.2)
    other = base.copy()
    other[:count] += by
    return means(base), means(other)


@pytest.mark.parametrize(("count", "p"), [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125)])
@pytest.mark.parametrize("n", [20, 200])
def test_few_changed_rows_of_one_sign_have_the_exact_p(n, count, p):
    difference = paired_difference(*changed(n, count))
    assert difference.p == pytest.approx(p)
    assert difference.differing == count
    assert difference.direction == (p <= 0.05)


def test_worse_is_better_the_other_way_round():
    base, other = changed(50, 8)
    assert (paired_difference(base, other).direction, paired_difference(other, base).direction) == (1, -1)


def test_nothing_differs_is_said_and_is_no_proof_of_equality():
    base, _ = changed(40, 0)
    difference = paired_difference(base, base)
    assert (difference.p, difference.differing, difference.direction) == (1.0, 0, 0)
    assert difference.limits == "Nothing differs on these rows."
    assert difference.low < 0 < difference.high


def test_fewer_than_six_groups_decide_nothing():
    base, other = means(np.zeros(50), np.arange(50) // 10), means(np.ones(50), np.arange(50) // 10)
    difference = paired_difference(base, other)
    assert (difference.groups, difference.direction) == (5, 0)
    assert "5 independent groups" in difference.limits


def test_rows_of_one_document_are_one_unit():
    # Eight rows that change together: by row p is 2^-7, by document there is one change.
    values = np.zeros(80)
    values[:8] = 1
    together = np.arange(80) // 8
    assert paired_difference(means(np.zeros(80)), means(values)).direction == 1
    grouped = paired_difference(means(np.zeros(80), together), means(values, together))
    assert (grouped.p, grouped.direction) == (1.0, 0)


def test_the_smallest_difference_that_would_show_is_named():
    rng = np.random.default_rng(0)
    base = rng.random(100)
    difference = paired_difference(means(base), means(base + rng.normal(0, 0.2, 100)))
    assert difference.detectable == pytest.approx(2.8 * 20 / 10, rel=0.2)
    assert "show a difference of about" in difference.limits
    # One row that changes is the least that there can be.
    assert paired_difference(*changed(100, 1, 0.001)).detectable == pytest.approx(2.8)


@pytest.mark.parametrize("kind", ["spearman", "average_precision"])
def test_only_ranks_count_so_that_two_scales_are_one(kind):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 60)
    mine, others = labels + rng.normal(size=60), labels + rng.normal(size=60)

    def unit(scores):
        if kind == "spearman":
            return SpearmanOfUnits(scores, labels)
        return BinaryOfUnits(metrics.average_precision, scores, labels)

    every = np.arange(60)
    plain = randomization_test(unit(mine), unit(others), every)
    assert randomization_test(unit(mine), unit(np.exp(others / 9)), every) == plain
    assert randomization_test(unit(mine), unit(3 * mine + 1), every).differing == 0


@pytest.mark.parametrize("kind", ["mean", "spearman", "average_precision", "v_measure"])
def test_without_exchanges_it_is_the_plain_difference(kind):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 40)
    two = {
        "mean": [MeanOfUnits(rng.random(40)) for _ in range(2)],
        "spearman": [SpearmanOfUnits(labels + rng.normal(size=40), labels) for _ in range(2)],
        "average_precision": [
            BinaryOfUnits(metrics.average_precision, labels + rng.normal(size=40), labels > 0) for _ in range(2)
        ],
        "v_measure": [VMeasureOfUnits(labels, rng.integers(0, 3, (4, 40))) for _ in range(2)],
    }[kind]
    every = np.arange(40)
    none = np.zeros((1, 40), dtype=bool)
    expected = two[1](every) - two[0](every)
    assert two[0].exchanged(two[1], none, every)[0] == pytest.approx(expected)
    if kind != "v_measure":  # whose exchanges are of renumbered clusters, with the clusterings' own chance added
        assert two[0].exchanged(two[1], ~none, every)[0] == pytest.approx(-expected)


def test_clusters_have_no_numbers():
    labels = np.arange(60) % 4
    clusters = np.stack([labels, np.roll(labels, 1)])
    renumbered = (clusters + 1) % 4
    test = randomization_test(VMeasureOfUnits(labels, clusters), VMeasureOfUnits(labels, renumbered), np.arange(60))
    assert (test.p, test.differing) == (1.0, 0)


@pytest.mark.parametrize("kind", ["sparse", "dense", "heavy", "grouped"])
def test_it_is_seldom_wrong_where_nothing_differs(kind):
    rng, wrong, draws, n = np.random.default_rng(0), 0, 400, 30
    groups = np.arange(n) // 3 if kind == "grouped" else np.arange(n)
    for _ in range(draws):
        truth = rng.random(n)
        two = []
        for _ in range(2):
            noise = {
                "sparse": np.where(np.arange(n) < 3, rng.normal(size=n), 0),
                "dense": rng.normal(size=n),
                "heavy": rng.standard_t(2, n),
                "grouped": rng.normal(size=n // 3)[np.arange(n) // 3],
            }[kind]
            two.append(means(truth + noise, groups))
        test = randomization_test(two[0].units["m"], two[1].units["m"], two[0].group_codes)
        wrong += test.p <= 0.05
    assert wrong / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


def test_several_comparisons_are_adjusted():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_better_needs_interval_and_test():
    base = Evaluation(Shape.PAIRS, "m", 4, {"m": 0.0}, {"m": MeanOfUnits(np.zeros(4))})
    other = Evaluation(Shape.PAIRS, "m", 4, {"m": 85.0}, {"m": MeanOfUnits(np.array([0.9, 1.0, 0.7, 0.8]))})
    difference = paired_difference(base, other)
    assert difference.low > 0
    assert difference.direction == 0


def test_an_undefined_metric_decides_nothing_and_is_said():
    flat, gold = np.ones(20), np.arange(20)
    two = [evaluation(SpearmanOfUnits(scores, gold), 20, metric="spearman") for scores in (flat, np.arange(20.0))]
    difference = paired_difference(*two)
    assert np.isnan(difference.p)
    assert (difference.direction, difference.limits) == (0, "The metric is undefined on these rows.")
    assert holm([0.02, float("nan"), 0.5]) == pytest.approx([0.04, float("nan"), 0.5], nan_ok=True)


def test_v_measures_are_those_of_the_single_ones_with_any_number_of_labels():
    rng = np.random.default_rng(0)
    for labels in (rng.integers(0, 3, 50), np.arange(50), rng.integers(0, 3000, 50)):
        clusters = rng.integers(0, labels.max() + 1, (7, 50))
        single = [metrics.v_measure(labels, row) for row in clusters]
        assert metrics.v_measures(labels, clusters) == pytest.approx(single)
