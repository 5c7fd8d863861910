from __future__ import annotations

import json
from pathlib import Path

import pytest

from scions.data import Shape, Table, check_trainable, fingerprint, read
from scions.errors import DataError, UsageError


def table(tmp_path: Path, rows: list[dict], **options) -> Table:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(path, **options)


A, B, C = "first text", "second text", "third text"


@pytest.mark.parametrize(
    ("row", "shape", "columns"),
    [
        ({"text": A}, Shape.TEXTS, {"text": [A]}),
        ({"whatever": A}, Shape.TEXTS, {"text": [A]}),
        ({"id": 3, "Content": A}, Shape.TEXTS, {"text": [A]}),
        ({"question": A, "answer": B}, Shape.PAIRS, {"anchor": [A], "positive": [B]}),
        ({"title": A, "body": B}, Shape.PAIRS, {"anchor": [A], "positive": [B]}),
        ({"query": A, "pos": B, "neg": C}, Shape.TRIPLETS, {"anchor": [A], "positive": [B], "negative": [C]}),
        ({"anchor": A, "positive": B, "hard-negative": C}, Shape.TRIPLETS, None),
        ({"sentence1": A, "sentence2": B, "score": 4}, Shape.SCORED, None),
        ({"sentence1": A, "sentence2": B, "score": 0.5, "context": "H01"}, Shape.SCORED, None),
        ({"premise": A, "hypothesis": B, "similarity": "0.5"}, Shape.SCORED, None),
        ({"sentence1": A, "sentence2": B, "label": 3.8}, Shape.SCORED, None),
        ({"sentence1": A, "sentence2": B, "label": "1"}, Shape.BINARY, None),
        ({"text": A, "text_pair": B, "label": True}, Shape.BINARY, None),
        ({"text": A, "label": 7}, Shape.LABELLED, {"text": [A], "label": ["7"]}),
        ({"query": A, "intent": "x"}, Shape.LABELLED, None),
        ({"question": A, "answer": B, "category": "x"}, Shape.PAIRS, None),
        ({"query": A, "positive": [B], "negative": [C]}, Shape.CANDIDATES, None),
        (
            {"query": A, "positive": [B]},
            Shape.CANDIDATES,
            {"query": [A], "positive": [[B]], "negative": [[]]},
        ),
    ],
)
def test_usual_names_tell_the_shape(tmp_path: Path, row: dict, shape: Shape, columns: dict | None) -> None:
    found = table(tmp_path, [row])
    assert found.shape is shape
    if columns is not None:
        assert found.columns == columns


def test_extra_columns_are_ignored_and_listed(tmp_path: Path) -> None:
    found = table(tmp_path, [{"sentence1": A, "sentence2": B, "score": 0.5, "context": "H01", "n": 3}])
    assert found.notes == ["ignored columns: context, n"]


def test_binary_labels_in_every_spelling(tmp_path: Path) -> None:
    labels = [0, 1, "0", "1", True, False, "true", "False", 1.0]
    found = table(tmp_path, [{"sentence1": A, "sentence2": B, "label": label} for label in labels])
    assert found.columns["label"] == [0, 1, 0, 1, 1, 0, 1, 0, 1]


def test_classes_over_pairs_are_refused_with_the_way_out(tmp_path: Path) -> None:
    rows = [{"premise": A, "hypothesis": B, "label": label} for label in ("entailment", "neutral")]
    with pytest.raises(DataError, match=r"'entailment', 'neutral'; Scions trains on scored pairs.*Convert it"):
        table(tmp_path, rows)
    numbers = [{"premise": A, "hypothesis": B, "label": label} for label in (0, 1, 2)]
    with pytest.raises(DataError, match=r"columns=\{'score': 'label'\}"):
        table(tmp_path, numbers)
    assert table(tmp_path, numbers, columns={"score": "label"}).columns["score"] == [0.0, 1.0, 2.0]
    with pytest.raises(DataError, match=r"data\.jsonl:3: column 'label'"):
        table(tmp_path, numbers, shape="binary")


@pytest.mark.parametrize(
    "row",
    [
        {"left": A, "right": B},
        {"text": A, "sentence": B},
        {"query": A, "postive": B},
        {"title": A, "text": B, "label": "x"},
        {"sentence1": A, "sentence2": B, "score": 0.3, "label": 1},
    ],
)
def test_doubts_show_columns_a_row_and_the_flags(tmp_path: Path, row: dict) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, [row])
    message = str(caught.value)
    assert ", ".join(row) in message
    assert repr(next(iter(row.values()))) in message
    assert "columns={'anchor': 'COL', 'positive': 'COL'}" in message
    assert "`shape=...` (texts, pairs, " in message


@pytest.mark.parametrize("values", [(0, 1), ("0", "1"), (True, False), (0.0, 1.0)])
def test_judged_pairs_are_never_all_taken_for_positives(tmp_path: Path, values: tuple) -> None:
    quora = [{"question1": A, "question2": B, "is_duplicate": value} for value in values]
    assert table(tmp_path, quora).shape is Shape.BINARY
    unnamed = [{"anchor": A, "positive": B, "fits": value} for value in values]
    with pytest.raises(
        DataError, match=r"'fits' beside a pair holds 0 and 1.*columns=\{'label': 'fits'\}.*shape='pairs'"
    ):
        table(tmp_path, unnamed)
    assert table(tmp_path, unnamed, columns={"label": "fits"}).shape is Shape.BINARY
    assert table(tmp_path, unnamed, shape="pairs").shape is Shape.PAIRS
    other = [{"anchor": A, "positive": B, "votes": value} for value in (0, 1, 2)]
    assert table(tmp_path, other).shape is Shape.PAIRS


def test_the_sample_row_is_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, [{"left": "x" * 5000, "right": "y" * 5000}])
    assert len(str(caught.value)) < 700


def test_shape_and_columns_settle_doubts(tmp_path: Path) -> None:
    row = {"left": A, "right": B, "who": "g1"}
    found = table(tmp_path, [row], columns={"anchor": "left", "positive": "right", "group": "who"})
    assert (found.shape, found.columns, found.group) == (
        Shape.PAIRS,
        {"anchor": [A], "positive": [B]},
        ["g1"],
    )
    both = {"sentence1": A, "sentence2": B, "score": 0.3, "label": 1}
    assert table(tmp_path, [both], shape="binary").shape is Shape.BINARY
    assert table(tmp_path, [both], shape=Shape.SCORED).columns["score"] == [0.3]
    assert table(tmp_path, [both], columns={"anchor": "sentence1", "positive": "sentence2"}).shape is Shape.PAIRS
    assert table(tmp_path, [both], shape="texts", columns={"text": "sentence2"}).columns["text"] == [B]
    assert table(tmp_path, [{"query": A, "answer": B}], shape="candidates").columns["positive"] == [[B]]


def test_wrong_words_are_named(tmp_path: Path) -> None:
    row = {"left": A, "right": B}
    with pytest.raises(DataError, match=r"no column 'lft'; did you mean 'left'\?"):
        table(tmp_path, [row], columns={"anchor": "lft"})
    with pytest.raises(UsageError, match="'ancor' is no column of Scions"):
        table(tmp_path, [row], columns={"ancor": "left"})
    with pytest.raises(UsageError, match="do not belong to one shape"):
        table(tmp_path, [row], columns={"anchor": "left", "score": "right"})
    with pytest.raises(UsageError, match="unknown shape 'pair'; the shapes are: texts, pairs"):
        table(tmp_path, [row], shape="pair")
    with pytest.raises(DataError, match="needs 'score'"):
        table(tmp_path, [{"sentence1": A, "sentence2": B}], shape="scored")


@pytest.mark.parametrize("score", ["NaN", "Infinity", '"inf"', '"much"', "true"])
def test_scores_must_be_finite_numbers(tmp_path: Path, score: str) -> None:
    good = '{"sentence1": "a", "sentence2": "b", "score": 1}\n'
    (tmp_path / "s.jsonl").write_text(good + good.replace("1}", f"{score}}}"))
    with pytest.raises(DataError, match=r"s\.jsonl:2: column 'score'"):
        read(tmp_path / "s.jsonl")


def test_text_columns_refuse_lists_and_candidates_refuse_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":1: column 'text' must hold text, found list"):
        table(tmp_path, [{"text": ["a"], "label": "x"}])
    with pytest.raises(DataError, match=r":1: column 'positive' must hold text, found int 4"):
        table(tmp_path, [{"query": "a", "positive": ["b", 4]}])


def test_a_query_without_positives_is_dropped(tmp_path: Path) -> None:
    rows = [
        {"query": A, "positive": [B, None], "negative": None},
        {"query": B, "positive": [], "negative": [C]},
    ]
    found = table(tmp_path, rows)
    assert found.columns == {"query": [A], "positive": [[B]], "negative": [[]]}
    assert "(line 2)" in found.notes[0]


def test_an_empty_group_stands_alone(tmp_path: Path) -> None:
    found = table(tmp_path, [{"text": A, "group": None}, {"text": B, "group": 3}, {"text": C, "group": None}])
    assert found.group is not None
    assert found.group[1] == "3"
    assert len(set(found.group)) == 3


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Table(Shape.LABELLED, {"text": [A, B], "label": ["x", "x"]}, "src"), "src: all 2 labels are 'x'"),
        (
            Table(Shape.BINARY, {"sentence1": [A], "sentence2": [B], "label": [1]}, "src"),
            "both 0 and 1.*shape='pairs'",
        ),
        (
            Table(Shape.SCORED, {"sentence1": [A], "sentence2": [B], "score": [0.5]}, "src"),
            "all 1 scores are 0.5",
        ),
        (
            Table(Shape.SCORED, {"sentence1": [A], "sentence2": [B], "score": [float("nan")]}, "src"),
            "src, row 1: the score is nan",
        ),
        (Table(Shape.TEXTS, {"text": []}, "src"), "no rows"),
    ],
)
def test_tables_that_teach_nothing(made: Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_trainable(made)


def test_a_table_that_varies_is_trainable() -> None:
    check_trainable(Table(Shape.LABELLED, {"text": [A, B], "label": ["x", "y"]}, "src"))


def test_a_table_refuses_columns_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="has columns anchor, positive; found anchor"):
        Table(Shape.PAIRS, {"anchor": [A]}, "src")
    with pytest.raises(DataError, match="different lengths"):
        Table(Shape.PAIRS, {"anchor": [A], "positive": []}, "src")


def test_fingerprint_sees_content_only(tmp_path: Path) -> None:
    rows = [{"sentence1": A, "sentence2": B, "score": 1}, {"sentence1": B, "sentence2": C, "score": 0.5}]
    one = table(tmp_path, rows)
    (tmp_path / "o.csv").write_text(f"score,sentence2,sentence1\n0.5,{C},{B}\n1.0,{B},{A}\n")
    assert fingerprint(one) == fingerprint(read(tmp_path / "o.csv"))
    assert len(fingerprint(one)) == 64
    rows[0]["score"] = 0.9
    assert fingerprint(one) != fingerprint(table(tmp_path, rows))
