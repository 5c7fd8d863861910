"""Space, prompt and length of a row, the same for encoder, training and server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scions.encoder.base_info import (
    BaseInfo,
    document_adapter,
    max_length_of,
    row_limit,
    row_prompts,
    row_space,
    rows_by_key,
    weights_space,
)
from scions.errors import UsageError
from scions.store import space_fingerprint

LEGAL = SimpleNamespace(fingerprint="l" * 64, query_side=False, max_length=16, prompts={"query": "find "})
QUERIES = SimpleNamespace(fingerprint="q" * 64, query_side=True, max_length=None, prompts={})
BASE = BaseInfo("org/base", "b" * 64, "mean", 8, 100, 64, {"query": "query: ", "document": "text: "}, positions=64)


def test_the_space_is_the_bases_at_strength_zero_and_for_queries():
    bare = space_fingerprint(BASE.sha256, None, pooling="mean", dimensions=8)
    adapted = space_fingerprint(BASE.sha256, LEGAL.fingerprint, 0.5, pooling="mean", dimensions=8)
    for weights, strength, expected in (
        (None, 1.0, bare),
        (LEGAL, 0.0, bare),
        (QUERIES, 1.0, bare),
        (LEGAL, 0.5, adapted),
    ):
        assert BASE.space(weights, strength, 8) == expected
        assert weights_space(BASE.sha256, weights, strength, "mean", 8) == expected
    assert row_space(BASE.sha256, "l" * 64, 0.5, pooling="mean", dimensions=8) == adapted
    with pytest.raises(UsageError, match="finite"):
        row_space(BASE.sha256, "l" * 64, float("nan"), pooling="mean", dimensions=8)


def test_an_adapters_own_prompt_goes_before_the_bases():
    assert row_prompts([LEGAL, None, QUERIES], "query", BASE.prompts) == ["find ", "query: ", "query: "]
    assert row_prompts([LEGAL, None], "other", BASE.prompts) == [None, None]
    assert row_prompts([LEGAL, None], None, BASE.prompts) == ["", ""]


def test_a_row_is_read_at_its_adapters_length_within_the_positions():
    assert [row_limit(weights, 32, 64) for weights in (LEGAL, QUERIES, None)] == [16, 32, 32]
    assert row_limit(LEGAL, 32, 10) == 10
    assert row_limit(LEGAL, None, None) == 16
    assert row_limit(None, None, 64) is None
    assert [BASE.limit(weights) for weights in (LEGAL, QUERIES, None)] == [16, 64, 64]


def test_documents_are_left_to_the_base_by_query_side_adapters():
    assert [document_adapter(weights) for weights in (LEGAL, QUERIES, None)] == [LEGAL, None, None]


def test_rows_are_grouped_in_order_of_first_appearance():
    assert rows_by_key("abacb") == {"a": [0, 2], "b": [1, 4], "c": [3]}
    assert list(rows_by_key("cab")) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("stated", "config", "expected"), [(None, 77, 77), (10**30, 77, 77), (None, None, 512), (9, 77, 9)]
)
def test_the_length_of_a_base(stated, config, expected):
    class Model(list):
        max_seq_length = stated

    network = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=config))
    assert max_length_of(Model([SimpleNamespace(auto_model=network)])) == expected
