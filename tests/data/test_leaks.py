"""Rows that are in two parts, and duplicates within one."""

from __future__ import annotations

import pytest

from scions.data import Shape, Splits, Table
from scions.data.leaks import drop_duplicates, drop_leaks, drop_shared_rows, text_overlap
from scions.errors import DataError


def pairs(*rows: tuple[str, str]) -> Table:
    return Table(Shape.PAIRS, {"anchor": [a for a, _ in rows], "positive": [b for _, b in rows]}, "pairs")


def scored(*rows: tuple[str, str, float]) -> Table:
    columns = dict(zip(("sentence1", "sentence2", "score"), map(list, zip(*rows, strict=True)), strict=True))
    return Table(Shape.SCORED, columns, "scored")


def retrieval(*queries: str) -> Table:
    columns = {"query": list(queries), "relevant": [{"d": 1.0} for _ in queries]}
    return Table(Shape.RETRIEVAL, columns, "retrieval", corpus={"d": "the document"})


def test_duplicates_are_exact_and_the_first_stays() -> None:
    table = scored(("a", "b", 1.0), ("a", "b", 0.5), ("a", "b", 1.0), ("A", "b", 1.0))
    unique = drop_duplicates(table)
    assert unique.columns["score"] == [1.0, 0.5, 1.0]
    assert unique.columns["sentence1"] == ["a", "a", "A"]
    assert unique.notes == ["removed 1 exact duplicate row"]
    assert table.notes == []
    assert drop_duplicates(unique) is unique


def test_a_pair_is_the_same_in_either_order_case_and_spacing_and_whatever_its_score() -> None:
    train = scored(("One text", "another", 0.1), ("another ", "ONE  text", 0.2), ("one text", "a third", 0.3))
    rest, removed = drop_shared_rows(train, scored(("one text", "another", 5.0)))
    assert rest.columns["sentence2"] == ["a third"]
    assert removed == 2


def test_nothing_shared_gives_the_table_itself() -> None:
    table = pairs(("a", "b"))
    assert drop_shared_rows(table, pairs(("a", "c"), ("b", "c"))) == (table, 0)


def test_against_queries_the_first_text_alone_decides() -> None:
    table = pairs(("Asked", "answer"), ("other", "asked"))
    rest, removed = drop_shared_rows(table, retrieval("asked"))
    assert (rest.columns["anchor"], removed) == (["other"], 1)
    rest, removed = drop_shared_rows(retrieval("other", "free"), table)
    assert (rest.columns["query"], removed) == (["free"], 1)


def test_test_rows_stay_and_train_gives_way_to_dev() -> None:
    splits = Splits(
        pairs(("a", "1"), ("b", "2"), ("e", "5")),
        pairs(("b", "2"), ("c", "3"), ("d", "4")),
        pairs(("c", "3"), ("e", "5")),
        ["noted before"],
    )
    clean = drop_leaks(splits)
    assert [part.columns["anchor"] for part in (clean.train, clean.dev, clean.test)] == [["a"], ["b", "d"], ["c", "e"]]
    assert clean.notes == [
        "noted before",
        "removed 1 rows of dev that are also in test",
        "removed 1 rows of train that are also in dev",
        "removed 1 rows of train that are also in test",
    ]


@pytest.mark.parametrize(("train", "dev", "name"), [(("c", "x"), ("c", "t"), "dev"), (("c", "t"), ("e", "f"), "train")])
def test_a_part_of_which_nothing_is_left_is_refused(train: tuple, dev: tuple, name: str) -> None:
    with pytest.raises(DataError, match=f"pairs: every row of {name} is also in a held-out part"):
        drop_leaks(Splits(pairs(train), pairs(dev), pairs(("c", "t"))))


def test_the_overlap_is_a_share_of_distinct_test_texts() -> None:
    train = pairs(("a", "b"), ("c", "d"))
    assert text_overlap(train, pairs(("A ", "x"), ("a", "y"))) == pytest.approx(1 / 3)
    assert text_overlap(train, retrieval("b")) == 0.5  # its document counts too
    assert text_overlap(train, Table(Shape.TEXTS, {"text": []}, "none")) == 0.0
