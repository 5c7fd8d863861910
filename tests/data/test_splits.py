from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scions.data import Shape, Splits, Table, read_splits, split
from scions.data.groups import components, group_rows, normalize
from scions.errors import DataError, UsageError


def pairs(rows: list[tuple[str, str]], group: list[str] | None = None) -> Table:
    columns = {"anchor": [a for a, _ in rows], "positive": [b for _, b in rows]}
    return Table(Shape.PAIRS, columns, "pairs", group=group)


def parts(splits: Splits) -> list[Table]:
    return [splits.train, splits.dev, splits.test]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts_of(table: Table) -> set[str]:
    return {normalize(text) for texts in table.row_texts() for text in texts}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=20, max_size=80), st.integers(0, 3))
def test_no_group_crosses_and_no_row_is_lost(rows: list[tuple[int, int]], seed: int) -> None:
    table = pairs([(f"q{a}", f"p{b}") for a, b in rows])
    if len(set(group_rows(table)[0])) < 3:
        with pytest.raises(DataError, match="must stay together"):
            split(table, seed=seed)
        return
    made = split(table, seed=seed)
    together = [
        pair for part in parts(made) for pair in zip(part.columns["anchor"], part.columns["positive"], strict=True)
    ]
    assert Counter(together) == Counter(zip(table.columns["anchor"], table.columns["positive"], strict=True))
    assert all(len(part) for part in parts(made))
    fallback = any("first text" in note for note in made.notes)
    kept = [set(part.columns["anchor"]) if fallback else texts_of(part) for part in parts(made)]
    assert not kept[0] & kept[1]
    assert not kept[0] & kept[2]
    assert not kept[1] & kept[2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), min_size=20, max_size=60), st.integers(0, 3))
def test_an_explicit_group_stays_on_one_side(groups: list[str], seed: int) -> None:
    table = pairs([(f"q{i}", "same") for i in range(len(groups))], group=groups)
    if len(set(groups)) < 3:
        with pytest.raises(DataError, match="must stay together"):
            split(table, seed=seed)
        return
    sides = [set(part.group or []) for part in parts(split(table, seed=seed))]
    assert sum(map(len, sides)) == len(set(groups))
    assert all(sides)


def test_shares_and_seed() -> None:
    table = pairs([(f"q{i}", f"p{i}") for i in range(500)])
    made = split(table, seed=1)
    assert [len(part) for part in parts(made)] == [350, 50, 100]
    again, other = split(table, seed=1), split(table, seed=2)
    assert made.test.columns == again.test.columns
    assert made.test.columns != other.test.columns


def test_caps_leave_the_rest_to_train() -> None:
    made = split(Table(Shape.TEXTS, {"text": [f"t{i}" for i in range(30_000)]}, "t"))
    assert [len(part) for part in parts(made)] == [25_000, 2000, 3000]


def test_a_hub_text_falls_back_to_the_first_column_and_says_so() -> None:
    table = pairs([(f"q{i // 2}", "a text shared by all") for i in range(60)])
    made = split(table)
    assert any("by the first text" in note and "100 %" in note for note in made.notes)
    assert not texts_of(made.train) & texts_of(made.test) - {"a text shared by all"}


@pytest.mark.parametrize("rows", [1, 19])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(DataError, match=rf"{rows} rows; .* at least 20 rows .*test=..."):
        split(pairs([(f"q{i}", f"p{i}") for i in range(rows)]))


def test_shares_must_leave_something() -> None:
    with pytest.raises(UsageError, match=r"test 0\.9, dev 0.3"):
        split(pairs([(f"q{i}", f"p{i}") for i in range(30)]), dev_share=0.3, test_share=0.9)


def test_retrieval_groups_by_shared_documents() -> None:
    corpus = {f"d{i}": f"document {i}" for i in range(40)}
    table = Table(
        Shape.RETRIEVAL,
        {"query": [f"q{i}" for i in range(80)], "relevant": [{f"d{i // 2}": 1.0} for i in range(80)]},
        "r",
        corpus=corpus,
    )
    made = split(table)
    documents = [{key for relevant in part.columns["relevant"] for key in relevant} for part in parts(made)]
    assert not documents[0] & documents[2]
    assert not documents[0] & documents[1]
    assert made.test.corpus is corpus


def test_components_join_through_other_rows() -> None:
    assert components([["a"], ["b"], ["a", "b"], ["c"], []]) == [0, 0, 0, 1, 2]


def test_duplicates_and_leaks_are_removed_and_reported(tmp_path: Path) -> None:
    train = [{"query": f"q{i}", "answer": f"a{i}"} for i in range(10)]
    train += [
        train[0],
        {"query": " Tested  QUERY", "answer": "tested answer"},
        {"query": "seen", "answer": "a1"},
    ]
    write(tmp_path / "train.jsonl", train)
    write(
        tmp_path / "validation.jsonl",
        [{"query": "seen", "answer": "A1"}, {"query": "in both", "answer": "x"}],
    )
    tested = [{"query": "tested query", "answer": "tested answer"}, {"query": "in both", "answer": "x"}]
    write(tmp_path / "test.jsonl", [*tested, {"query": "new", "answer": "a2"}])
    made = read_splits(str(tmp_path))
    assert [len(part) for part in parts(made)] == [10, 1, 3]
    assert "train: removed 1 exact duplicate row" in made.notes
    assert "removed 1 rows of dev that are also in test" in made.notes
    assert "removed 1 rows of train that are also in dev" in made.notes
    assert "removed 1 rows of train that are also in test" in made.notes
    # six distinct texts in test, of which a2 stands in train beside another query
    assert any(note.startswith("16.7 % of the distinct texts") for note in made.notes)


def test_missing_parts_are_split_off_train(tmp_path: Path) -> None:
    source = write(tmp_path / "all.jsonl", [{"text": f"t{i}", "label": str(i % 2)} for i in range(100)])
    made = read_splits(source)
    assert [len(part) for part in parts(made)] == [70, 10, 20]
    held = write(tmp_path / "held.jsonl", [{"text": f"T{i}", "label": "1"} for i in range(5)])
    made = read_splits(source, test=held)
    assert len(made.test) == 5
    assert len(made.train) + len(made.dev) == 95
    assert not texts_of(made.test) & texts_of(made.dev)


def test_held_out_parts_may_have_another_shape(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [{"answer": f"a{i}", "question": f"q{i}"} for i in range(30)])
    held = write(tmp_path / "h.jsonl", [{"sentence1": "x", "sentence2": "y", "score": 1}])
    made = read_splits(source, test=held, shape="texts", columns={"text": "answer"})
    assert (made.train.shape, made.dev.shape, made.test.shape) == (Shape.TEXTS, Shape.TEXTS, Shape.SCORED)


def test_the_users_columns_serve_held_out_parts_that_have_them(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [{"left": f"a{i}", "right": f"b{i}"} for i in range(30)])
    held = write(tmp_path / "h.jsonl", [{"left": "x", "right": "y"}])
    made = read_splits(source, test=held, columns={"anchor": "left", "positive": "right"})
    assert made.test.columns == {"anchor": ["x"], "positive": ["y"]}


def test_a_train_part_that_stands_in_test_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [{"text": "same"}])
    with pytest.raises(DataError, match="every row of train"):
        read_splits(source, dev=write(tmp_path / "d.jsonl", [{"text": "other"}]), test=source)


def test_limit_is_seeded_and_touches_train_only(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [{"text": f"t{i}"} for i in range(100)])
    one, two = read_splits(source, limit=10, seed=3), read_splits(source, limit=10, seed=3)
    assert one.train.columns == two.train.columns
    assert [len(part) for part in parts(one)] == [10, 10, 20]
    assert "train limited to 10 of 70 rows" in one.notes
    with pytest.raises(UsageError, match="limit"):
        read_splits(source, limit=0)


def test_two_files_for_one_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a"}])
    (tmp_path / "train.txt").write_text("a")
    with pytest.raises(DataError, match=r"train\.jsonl and train\.txt are both train"):
        read_splits(str(tmp_path))


def plain(rows: int, words: int = 9) -> Table:
    return Table(Shape.TEXTS, {"text": [f"text {i} " + "word " * (words - 2) for i in range(rows)]}, "t")


@pytest.mark.parametrize(("rows", "held"), [(400, (40, 80)), (200, (20, 40)), (100, (20, 20)), (80, (20, 20))])
def test_plain_texts_hold_out_enough_to_be_halved(rows: int, held: tuple[int, int]) -> None:
    made = split(plain(rows))
    assert (len(made.dev), len(made.test)) == held
    assert len(made.train) >= rows / 2


def test_plain_texts_too_few_or_too_short_are_split_as_they_are() -> None:
    assert [len(part) for part in parts(split(plain(79)))] == [55, 8, 16]
    assert [len(part) for part in parts(split(plain(100, words=3)))] == [70, 10, 20]


def test_short_texts_among_long_ones_make_the_held_out_parts_larger() -> None:
    texts = [*plain(150).columns["text"], *plain(150, words=3).columns["text"]]
    made = split(Table(Shape.TEXTS, {"text": texts}, "t"))
    assert (len(made.dev), len(made.test)) == (60, 60)
    for part in (made.dev, made.test):
        assert sum(len(text.split()) >= 8 for text in part.columns["text"]) >= 20


def test_what_halving_needs_is_what_evaluation_says() -> None:
    from scions.data import splits
    from scions.evaluation import split_halves

    assert (splits.PLAIN_TEXTS, splits.PLAIN_WORDS) == (split_halves.FEWEST_TEXTS, split_halves.FEWEST_WORDS)


def test_training_rows_that_all_stand_in_a_held_out_file(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}"} for i in range(30)]
    source, held = write(tmp_path / "t.jsonl", rows), write(tmp_path / "h.jsonl", rows[:15])
    with pytest.raises(DataError, match="every row is also in dev or test"):
        read_splits(source, dev=source)
    with pytest.raises(DataError, match=r"15 rows; .*; removed 15 rows of train that are also in test"):
        read_splits(source, test=held)
