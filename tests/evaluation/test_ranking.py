from __future__ import annotations

import numpy as np

from scions.evaluation import ranking
from scions.evaluation.ranking import nearest


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_blocks_and_chunks_find_what_one_full_sort_finds(monkeypatch):
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    queries, documents = unit(rng, 20, 8), unit(rng, 103, 8)
    blocks = [(start, documents[start : start + 10]) for start in range(0, 103, 10)]
    expected = np.argsort(-np.round(queries @ documents.T * 1e6), axis=1, kind="stable")[:, :15]
    assert nearest(queries, blocks, 103, 15).tolist() == expected.tolist()


def test_equal_scores_keep_document_order_across_blocks():
    documents = np.ones((6, 1), dtype=np.float32)
    found = nearest(documents[:1], [(0, documents[:2]), (2, documents[2:])], 6, 4)
    assert found.tolist() == [[0, 1, 2, 3]]


def test_excluded_documents_are_never_found_even_when_nothing_else_is_left():
    documents = np.ones((2, 1), dtype=np.float32)
    found = nearest(documents[:1], [(0, documents)], 2, 5, (np.array([0]), np.array([0])))
    assert found.tolist() == [[1, -1]]


def test_of_equal_scores_the_less_relevant_document_comes_first():
    documents = np.ones((6, 1), dtype=np.float32)
    found = nearest(documents[:1], [(0, documents[:2]), (2, documents[2:])], 6, 6, relevant=[{0: 2.0, 2: 1.0}])
    assert found.tolist() == [[1, 3, 4, 5, 2, 0]]
