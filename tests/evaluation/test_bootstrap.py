from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import scipy.stats

from scions.data.shapes import Shape, Table
from scions.errors import UsageError
from scions.evaluation import Evaluation, evaluate, interval, paired_difference, two_level_difference
from scions.evaluation.pair_tasks import similarity_evaluation
from scions.evaluation.scores import MeanOfUnits, VMeasureOfUnits, concluded


def means(values, rows="r", metric="ndcg@10"):
    texts = [f"{rows}{i}" for i in range(len(values))]
    return concluded(Shape.RETRIEVAL, metric, {metric: MeanOfUnits(np.asarray(values))}, texts)


def correlated(n, noise, seed=0):
    gold = np.random.default_rng(0).integers(0, 6, n).astype(float)
    cosines = gold + noise * np.random.default_rng(seed).normal(size=n)
    return similarity_evaluation(cosines, gold, [str(i) for i in range(n)]), cosines, gold


def test_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(1).random(400)
    found = interval(means(values), samples=20_000)
    wide = 196 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(100 * values.mean())
    assert found.low == pytest.approx(100 * values.mean() - wide, abs=0.25)
    assert found.high == pytest.approx(100 * values.mean() + wide, abs=0.25)


def test_resampled_spearman_ranks_the_resample_anew():
    evaluation, cosines, gold = correlated(200, 2.0)
    indices = np.random.default_rng(3).integers(200, size=200)
    expected = 100 * scipy.stats.spearmanr(cosines[indices], gold[indices]).statistic
    assert evaluation.resampled("spearman", indices) == pytest.approx(expected)


def test_a_thousand_samples_of_7000_rows_take_less_than_three_seconds():
    start = time.perf_counter()
    paired_difference(correlated(7000, 2.0)[0], correlated(7000, 1.9, 1)[0])
    assert time.perf_counter() - start < 3


def test_pairing_sees_a_small_gain_that_single_intervals_hide():
    values = np.random.default_rng(1).random(200) * 0.8
    base, other = means(values), means(values + 0.02)
    assert interval(base).high > interval(other).low
    gain = paired_difference(base, other)
    assert gain.value == pytest.approx(2.0)
    assert gain.low > 0
    assert gain.direction == 1
    assert paired_difference(base, base).direction == 0


def test_the_same_seed_gives_the_same_interval_and_another_a_different_one():
    evaluation = correlated(100, 2.0)[0]
    assert interval(evaluation, seed=1) == interval(evaluation, seed=1) != interval(evaluation, seed=2)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (means(np.ones(4)), "number of units differ .5 and 4."),
        (means(np.ones(5), metric="map"), "primary metric differ"),
        (means(np.ones(5), rows="other"), "rows differ"),
        (similarity_evaluation(np.arange(5.0), np.arange(5.0), list("abcde")), "shape differ"),
    ],
)
def test_what_does_not_belong_together_is_not_paired(other, said):
    with pytest.raises(UsageError, match=said):
        paired_difference(means(np.ones(5)), other)


def test_unknown_metric_no_samples_and_no_domains():
    evaluation = means(np.ones(5))
    with pytest.raises(UsageError, match=r"'map' .* it has ndcg@10"):
        interval(evaluation, "map")
    with pytest.raises(UsageError, match="at least 1 sample"):
        interval(evaluation, samples=0)
    with pytest.raises(UsageError, match="No domains"):
        two_level_difference([])


def test_two_levels_are_wider_than_rows_alone_where_domains_disagree():
    rng = np.random.default_rng(0)
    pairs = []
    for i, gain in enumerate([-0.05, 0.0, 0.1, 0.15]):
        values = rng.random(300) * 0.5
        pairs.append((means(values, str(i)), means(values + gain, str(i))))
    found = two_level_difference(pairs)
    assert found.value == pytest.approx(5.0)
    assert found.low < 1
    assert found.high > 9
    alike = two_level_difference([pairs[2], pairs[2]])
    assert alike.high - alike.low < 1e-9


def test_undefined_resamples_are_left_out():
    cosines, labels = [0.9, 0.1, 0.2], [1, 0, 0]
    vectors = {"q": [1, 0], **{str(c): [c, np.sqrt(1 - c * c)] for c in cosines}}

    class Toy:
        def encode(self, sentences, **kwargs):
            return np.array([vectors[text] for text in sentences])

    columns = {"sentence1": ["q"] * 3, "sentence2": [str(c) for c in cosines], "label": labels}
    found = interval(evaluate(Toy(), Table(Shape.BINARY, columns, "toy")))
    # All three rows share their first sentence: one group, which says nothing of others.
    assert (found.value, found.low, found.high) == (100.0, 0.0, 100.0)


def test_resampling_all_units_gives_the_score_for_every_shape_and_survives_a_pickle(words):
    rows = [f"{topic} {topic} word{i} and a few more words here" for topic in ("red", "blue") for i in range(15)]
    tables = [
        Table(Shape.TEXTS, {"text": rows}, "t"),
        Table(Shape.LABELLED, {"text": rows, "label": [row.split()[0] for row in rows]}, "l"),
        Table(Shape.SCORED, {"sentence1": rows, "sentence2": rows[::-1], "score": [*map(float, range(30))]}, "s"),
    ]
    for table in tables:
        evaluation: Evaluation = pickle.loads(pickle.dumps(evaluate(words, table)))
        for metric, value in evaluation.scores.items():
            assert evaluation.resampled(metric, np.arange(evaluation.n)) == pytest.approx(value)


def test_repeated_rows_do_not_push_the_interval_past_the_value():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 5)
    clusters = np.where(rng.random((3, 200)) < 0.5, labels, rng.integers(40, size=(3, 200)))
    units = {"v_measure": VMeasureOfUnits(labels, clusters)}
    evaluation = concluded(Shape.LABELLED, "v_measure", units, [str(i) for i in range(200)])
    plain = [evaluation.resampled("v_measure", rng.integers(200, size=200)) for _ in range(50)]
    assert min(plain) > evaluation.value
    found = interval(evaluation)
    assert found.low < found.value < found.high


def test_same_label_resample_drops_pairs_of_a_row_with_itself(words):
    table = Table(Shape.LABELLED, {"text": ["a b", "c d", "e f"], "label": ["x", "y", "x"]}, "l")
    evaluation = evaluate(words, table)
    # No two of the rows drawn share a label: a row drawn twice must not become a perfect pair.
    assert np.isnan(evaluation.resampled("same_label_ap", np.array([0, 0, 1])))


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 97.0, 100.0), (0.0, 0.0, 3.0), (0.5, 48.5, 51.5)])
def test_no_interval_has_the_width_zero(value, low, high):
    """Rule of three: what was seen in none of 100 rows may still be 3 of 100."""
    found = interval(means(np.full(100, value)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_bounds_stay_inside_the_range():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 3)
    clusters = np.where(rng.random((3, 30)) < 0.9, labels, rng.integers(10, size=(3, 30)))
    units = {"v_measure": VMeasureOfUnits(labels, clusters)}
    found = interval(concluded(Shape.LABELLED, "v_measure", units, [str(i) for i in range(30)]))
    assert 0 <= found.low < found.value < found.high <= 100


def test_groups_are_drawn_whole():
    """Ten rows of each of ten documents: rows drawn singly would look three times as sure."""
    rng = np.random.default_rng(0)
    documents = np.arange(100) // 10
    values = rng.random(10)[documents]
    texts = [str(i) for i in range(100)]
    single, grouped = (
        interval(concluded(Shape.PAIRS, "m", {"m": MeanOfUnits(values)}, texts, groups=groups))
        for groups in (None, documents)
    )
    assert grouped.high - grouped.low > 2 * (single.high - single.low)
