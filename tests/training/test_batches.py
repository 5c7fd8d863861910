"""Planned batches, masked negatives, mined negatives, and pieces of tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scions.data import Shape, Table
from scions.errors import DataError, UsageError
from scions.training.batches import Batch, PlannedSteps, plan_batches
from scions.training.examples import Examples, to_examples
from scions.training.hard_negatives import mine_negatives
from scions.training.tokens import Tokens, encode_all, encode_pieces


def _pairs(n):
    return Examples([str(i) for i in range(2 * n)], np.arange(2 * n).reshape(n, 2))


def _classes(keys):
    return Examples([str(i) for i in range(len(keys))], np.arange(len(keys))[:, None], keys=np.array(keys))


def _same(one, other):
    return all(np.array_equal(a.columns, b.columns) for a, b in zip(one, other, strict=True))


def test_the_plan_follows_from_the_seed():
    for examples in (_pairs(25), _classes([0, 1, 2, 0, 1, 2] * 5)):
        first, again, other = (plan_batches(examples, 4, 3, seed) for seed in (1, 1, 2))
        assert _same(first, again)
        assert not _same(first, other)


def test_every_epoch_holds_every_row_once_in_another_order():
    batches = plan_batches(_pairs(24), 4, 3, 0)
    assert len(batches) == 18
    epochs = [np.concatenate([b.columns[:, 0] for b in batches[i : i + 6]]).tolist() for i in (0, 6, 12)]
    assert all(sorted(rows) == list(range(0, 48, 2)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_last_row_alone_is_dropped_and_parts_of_epochs_are_possible():
    assert all(len(batch.columns) >= 2 for batch in plan_batches(_pairs(9), 4, 4, 0))
    assert len(plan_batches(_pairs(24), 4, 0.5, 0)) == 3
    assert len(plan_batches(_pairs(24), 4, 0.01, 0)) == 1
    assert len(plan_batches(_pairs(1), 4, 3, 0)) == 3


def test_batches_of_labels_are_balanced_pairs_of_one_class():
    keys = [0] * 80 + [1] * 10 + [2] * 5 + [3]
    examples = _classes(keys)
    batches = plan_batches(examples, 12, 3, 0)
    for batch in batches:
        assert batch.columns.shape[1] == 2
        assert (batch.columns[:, 0] != batch.columns[:, 1]).all()
        for column in batch.columns.T:
            assert [keys[i] for i in column] == batch.keys.tolist()
        counts = Counter(batch.keys.tolist())
        assert 3 not in counts  # one text has no partner
        if len(batch.keys) == 12:
            assert set(counts.values()) == {4}


def test_labels_without_a_pair_are_an_error_not_an_endless_search():
    with pytest.raises(DataError, match="no label has two training rows"):
        plan_batches(_classes([0, 1, 2, 3]), 2, 1, 0)


def _steps(examples, vectors=None):
    return PlannedSteps([], None, examples, vectors)


def test_false_negatives_by_identity():
    # Row 1 has row 0's positive as its own, row 2 has row 0's anchor as its positive.
    batch = Batch(np.array([[0, 1], [2, 1], [3, 0], [4, 5]]))
    examples = Examples([], batch.columns)
    expected = np.zeros((4, 4), dtype=bool)
    expected[0, 1] = expected[1, 0] = expected[0, 2] = True
    assert np.array_equal(_steps(examples).false_negatives(batch), expected)


def test_false_negatives_by_class():
    batch = Batch(np.array([[0, 1], [2, 3], [4, 5]]), keys=np.array([7, 8, 7]))
    expected = np.zeros((3, 3), dtype=bool)
    expected[0, 2] = expected[2, 0] = True
    assert np.array_equal(_steps(Examples([], batch.columns)).false_negatives(batch), expected)


def test_false_negatives_by_what_is_known_to_be_relevant():
    batch = Batch(np.array([[0, 1, 9], [2, 3, 8]]))
    examples = Examples([], batch.columns, relevant={0: {1, 3, 9}, 2: {3}})
    expected = np.zeros((2, 4), dtype=bool)
    expected[0, 1] = expected[0, 2] = True  # the other's positive, and its own negative that is none
    assert np.array_equal(_steps(examples).false_negatives(batch), expected)


def test_false_negatives_by_nearly_equal_vectors():
    vectors = np.eye(6, dtype=np.float32)
    vectors[3] = vectors[1]
    vectors[5] = 0.9 * vectors[1] + np.sqrt(1 - 0.81) * vectors[5]
    batch = Batch(np.array([[0, 1], [2, 3], [4, 5]]))
    expected = np.zeros((3, 3), dtype=bool)
    expected[0, 1] = expected[1, 0] = True
    assert np.array_equal(_steps(Examples([], batch.columns), vectors).false_negatives(batch), expected)


def test_the_own_positive_is_never_masked():
    # All texts equal, of one class, all relevant, and anchors that are their own positives.
    batch = Batch(np.array([[0, 0], [0, 0], [0, 1]]), keys=np.zeros(3, dtype=int))
    examples = Examples([], batch.columns, relevant={0: {0, 1}})
    mask = _steps(examples, np.ones((2, 1), dtype=np.float32)).false_negatives(batch)
    assert not mask.diagonal().any()
    assert mask.sum() == 6


def _retrieval(n, known, seed=0):
    """Queries 0..n-1, documents n..2n-1; each query knows `known` of them."""
    draw = np.random.default_rng(seed)
    relevant = {q: {n + (q + i) % n for i in range(known)} for q in range(n)}
    columns = np.array([[q, d] for q in range(n) for d in sorted(relevant[q])])
    vectors = draw.normal(size=(2 * n, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Examples([], columns, relevant=relevant), vectors.astype(np.float32)


@pytest.mark.parametrize(("n", "known"), [(60, 4), (5, 3), (3, 2), (2, 1)])
def test_mined_negatives_are_never_relevant(n, known):
    examples, vectors = _retrieval(n, known)
    mined = mine_negatives(examples, vectors, 0, 2)
    assert mined.columns.shape == (len(examples), 4)
    assert np.array_equal(mined.columns[:, :2], examples.columns)
    for anchor, _, *negatives in mined.columns.tolist():
        assert not set(negatives) & examples.relevant[anchor]
        assert all(n <= negative < 2 * n for negative in negatives)


def test_mined_negatives_are_hard_and_follow_from_the_seed():
    examples, vectors = _retrieval(200, 1)
    mined = mine_negatives(examples, vectors, 3)
    similarity = vectors[:200] @ vectors[200:].T
    for anchor, positive, negative in mined.columns:
        rank = int((similarity[anchor] > similarity[anchor, negative - 200]).sum())
        assert 3 <= rank < 30
        assert vectors[negative] @ vectors[positive] <= 0.95
    assert np.array_equal(mine_negatives(examples, vectors, 3).columns, mined.columns)
    assert not np.array_equal(mine_negatives(examples, vectors, 4).columns, mined.columns)


def test_mining_where_all_documents_are_relevant():
    examples, vectors = _retrieval(3, 3)
    mined = mine_negatives(examples, vectors, 0)
    batch = Batch(mined.columns)
    mask = _steps(mined).false_negatives(batch)
    assert mask[:, len(mined) :].all()


TABLES = {
    "pairs": ({"anchor": ["a", "b"], "positive": ["c", "c"]}, [["a", "c"], ["b", "c"]]),
    "triplets": ({"anchor": ["a"], "positive": ["b"], "negative": ["c"]}, [["a", "b", "c"]]),
    "scored": ({"sentence1": ["a", "b"], "sentence2": ["b", "c"], "score": [1.0, 4.0]}, [["a", "b"], ["b", "c"]]),
    "binary": ({"sentence1": ["a", "b"], "sentence2": ["b", "c"], "label": [0, 1]}, [["a", "b"], ["b", "c"]]),
    "labelled": ({"text": ["a", "b", "c"], "label": ["y", "x", "y"]}, [["a"], ["b"], ["c"]]),
    "candidates": (
        {"query": ["a", "b"], "positive": [["c", "d"], ["e"]], "negative": [["f"], ["g", "h"]]},
        [["a", "c", "f"], ["a", "d", "f"], ["b", "e", "g"]],
    ),
    "retrieval": ({"query": ["a", "b"], "relevant": [{"1": 1.0, "2": 0.0}, {"2": 2.0, "1": 1.0}]}, None),
    "texts": ({"text": ["a", "b"]}, [["a", "a"], ["b", "b"]]),
}


@pytest.mark.parametrize("shape", TABLES)
def test_rows_of_every_shape_as_examples(shape):
    columns, rows = TABLES[shape]
    corpus = {"1": "one", "2": "two"} if shape == "retrieval" else None
    objective = {"texts": "deletion", "scored": "cosent", "binary": "cosent"}.get(shape, "contrastive")
    examples = to_examples(Table(Shape.of(shape), columns, "t", corpus), objective, "q: ", "d: ")
    first = "d: " if shape in ("scored", "binary", "labelled", "texts") else "q: "
    found = [[examples.texts[i] for i in row] for row in examples.columns]
    expected = rows or [["a", "one"], ["b", "two"], ["b", "one"]]
    assert found == [[("d: " if column else first) + text for column, text in enumerate(row)] for row in expected]
    assert len(set(examples.texts)) == len(examples.texts)
    if objective == "cosent":
        assert examples.scores.tolist() == columns["score" if shape == "scored" else "label"]
    if shape == "labelled":
        assert examples.keys.tolist() == [1, 0, 1]
    relevant = {examples.texts[a]: {examples.texts[i] for i in known} for a, known in examples.relevant.items()}
    if shape == "candidates":
        assert relevant == {"q: a": {"d: c", "d: d"}, "q: b": {"d: e"}}
    if shape == "retrieval":
        assert relevant == {"q: a": {"d: one"}, "q: b": {"d: one", "d: two"}}


def test_candidates_without_a_negative_everywhere_have_none():
    columns = {"query": ["a", "b"], "positive": [["c"], ["e"]], "negative": [["f"], []]}
    assert to_examples(Table(Shape.CANDIDATES, columns, "t"), "contrastive").columns.shape == (2, 2)


def test_every_shape_can_be_plain_text():
    columns, _ = TABLES["triplets"]
    examples = to_examples(Table(Shape.TRIPLETS, columns, "t"), "simcse")
    assert examples.columns.tolist() == [[0, 0], [1, 1], [2, 2]]
    with pytest.raises(UsageError, match="only be trained with the objectives simcse or deletion"):
        to_examples(Table(Shape.TEXTS, {"text": ["a"]}, "t"), "contrastive")


def test_pieces_hold_every_place_once_longest_first(model):
    texts = ["the " * (1 + i * 7 % 30) + str(i) for i in range(50)]
    tokens = Tokens(model, texts, 20)
    assert tokens.truncated == sum(len(model.tokenizer(text)["input_ids"]) > 20 for text in texts) > 0
    assert tokens.lengths.max() == 20
    places = np.arange(50)[::2]
    pieces = tokens.pieces(places, 64)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(places)))
    lengths = tokens.lengths[places[np.concatenate(pieces)]]
    assert (np.diff(lengths) <= 0).all()
    for piece in pieces:
        assert len(piece) * tokens.lengths[places[piece]].max() <= 64 or len(piece) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_encoded_pieces_are_the_texts_vectors_in_their_places(model, packed):
    from contextlib import nullcontext

    import torch

    from scions.engine.forward import packed_forward

    texts = ["the court", "a", "the drug of the doctor in trial", "valve and pump", "the court"]
    tokens = Tokens(model, texts, 64)
    expected = model.encode(texts, normalize_embeddings=True)
    with packed_forward(model) if packed else nullcontext(), torch.no_grad():
        assert np.allclose(encode_all(model, tokens, packed, 12), expected, atol=1e-5)
        places = np.arange(5)
        pieces = [(torch.from_numpy(p.copy()), tokens.features(places[p], packed)) for p in tokens.pieces(places, 12)]
        assert len(pieces) > 1
        assert np.allclose(encode_pieces(model, pieces).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("distinct", [True, False])
def test_the_item_of_a_step(model, distinct):
    texts = ["the court", "a judge", "the pump"]
    batch = Batch(np.array([[0, 1], [2, 1]]), scores=np.array([0.5, 1.0], dtype=np.float32))
    item = PlannedSteps([batch], Tokens(model, texts, 16), Examples(texts, batch.columns), distinct=distinct)[0]
    assert item["index"].tolist() == ([[0, 1], [2, 1]] if distinct else [[0, 1], [2, 3]])
    assert sum(len(positions) for positions, _ in item["pieces"]) == (3 if distinct else 4)
    assert item["scores"].tolist() == [0.5, 1.0]
    assert "mask" not in item
