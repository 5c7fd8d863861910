"""Values of a file's rows as a table holds them, and rows that lack one."""

from __future__ import annotations

from typing import Any

import pytest

from scions.data import Shape, Table
from scions.data.columns import RecognizedColumns
from scions.data.files import Rows
from scions.data.tables import build_table
from scions.errors import DataError


def table(shape: Shape, rows: list[dict[str, Any]], columns: dict[str, str] | None = None, unit: str = "line") -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    places = [10 * i for i in range(1, len(rows) + 1)]
    return build_table(
        Rows("f", names, rows, places, unit), RecognizedColumns(shape, columns or {name: name for name in names})
    )


@pytest.mark.parametrize(("value", "score"), [(1, 1.0), ("0.5", 0.5), (" -3e-1 ", -0.3), (0, 0.0), ("٣", 3.0)])
def test_scores_are_numbers_or_write_one(value: object, score: float) -> None:
    made = table(Shape.SCORED, [{"sentence1": "a", "sentence2": "b", "score": value}])
    assert made.columns["score"] == [score]
    assert type(made.columns["score"][0]) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "must hold a number, found True"),
        ("high", "must hold a number, found 'high'"),
        ([1], "must hold a number"),
        ("nan", "must hold a finite number, found nan"),
        (float("inf"), "must hold a finite number, found inf"),
    ],
)
def test_other_scores_name_the_line(value: object, message: str) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in (1, value)]
    with pytest.raises(DataError, match=f"^f:20: column 'score' {message}"):
        table(Shape.SCORED, rows)


@pytest.mark.parametrize(
    ("value", "label"), [(7, "7"), (7.0, "7"), (7.5, "7.5"), (" x ", "x"), (True, "True"), (0, "0")]
)
def test_labels_are_strings(value: object, label: str) -> None:
    assert table(Shape.LABELLED, [{"text": "a", "label": value}]).columns["label"] == [label]


@pytest.mark.parametrize("value", [["x"], {"x": 1}, float("nan")])
def test_a_label_is_one_value(value: object) -> None:
    with pytest.raises(DataError, match="f:10: column 'label' must hold one label"):
        table(Shape.LABELLED, [{"text": "a", "label": value}])


def test_texts_are_kept_as_they_are() -> None:
    assert table(Shape.TEXTS, [{"text": " a\n"}]).columns["text"] == [" a\n"]
    with pytest.raises(DataError, match=r"f, row 20: column 'text' must hold text, found float 0\.5"):
        table(Shape.TEXTS, [{"text": "a"}, {"text": 0.5}], unit="row")
    with pytest.raises(DataError, match="surrogate pair at character 3"):
        table(Shape.TEXTS, [{"text": "ab\ud83d"}])


def test_each_column_that_lacks_values_is_counted_apart() -> None:
    rows: list[dict[str, Any]] = [{"q": f"q{i}", "a": f"a{i}"} for i in range(20)]
    for i in (3, 5, 7, 9, 11, 13):
        rows[i]["a"] = " "
    rows[0]["q"] = None
    made = table(Shape.PAIRS, rows, {"anchor": "q", "positive": "a"})
    assert len(made) == 13
    assert made.columns["anchor"][0] == "q1"
    assert made.notes == [
        "dropped 1 row with nothing in column 'q' (line 10)",
        "dropped 6 rows with nothing in column 'a' (lines 40, 60, 80, 100, 120, …)",
    ]


def test_half_of_the_rows_may_be_dropped_but_no_more() -> None:
    full, empty = {"text": "a"}, {"text": ""}
    assert len(table(Shape.TEXTS, [full, empty])) == 1
    with pytest.raises(DataError, match=r"f: 2 of 3 rows have nothing .*\(lines 20, 30\).*columns=\.\.\."):
        table(Shape.TEXTS, [full, empty, empty])


def test_candidates_take_single_texts_and_lists_and_skip_blanks() -> None:
    rows = [
        {"query": "q", "positive": "p", "negative": ["n", "", None]},
        {"query": "r", "positive": ["p", " "], "negative": None},
        {"query": "s", "positive": ["", None], "negative": ["n"]},
    ]
    made = table(Shape.CANDIDATES, rows)
    assert made.columns == {"query": ["q", "r"], "positive": [["p"], ["p"]], "negative": [["n"], []]}
    assert made.notes == ["dropped 1 row with nothing in column 'positive' (line 30)"]


def test_groups_go_with_their_rows() -> None:
    rows = [{"text": "a", "g": 1}, {"text": None, "g": 2}, {"text": "b", "g": ""}, {"text": "c", "g": "x"}]
    made = table(Shape.TEXTS, rows, {"text": "text", "group": "g"})
    assert made.group is not None
    assert len(made.group) == len(made) == 3
    assert (made.group[0], made.group[2]) == ("1", "x")
    assert made.group[1] not in ("", "1", "x")
