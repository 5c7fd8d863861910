"""Labels of few rows: what trains has two of a label, and what is held out can be scored."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scions.data import Shape, Splits, Table, check_scorable, read_splits, split
from scions.errors import DataError


def labelled(counts: list[int]) -> Table:
    labels = [f"c{i}" for i, count in enumerate(counts) for _ in range(count)]
    return Table(Shape.LABELLED, {"text": [f"t{i}" for i in range(len(labels))], "label": labels}, "l")


def check(made: Splits) -> None:
    assert max(Counter(made.train.columns["label"]).values()) >= 2
    for part, table in (("dev", made.dev), ("test", made.test)):
        check_scorable(table, part)


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 6, 9, 12, 30])
def test_twenty_labels_of_so_many_rows(rows: int) -> None:
    made = split(labelled([rows] * 20))
    check(made)
    assert all(count >= 2 for count in Counter(made.train.columns["label"]).values())
    total = 20 * rows
    assert len(made.train) + len(made.dev) + len(made.test) == total
    assert 0.16 * total <= len(made.test) <= 0.2 * total + 4
    assert 0.07 * total <= len(made.dev) <= 0.1 * total + 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=30), st.integers(0, 3))
def test_any_labels_are_split_well_or_refused(counts: list[int], seed: int) -> None:
    table = labelled([*counts, 20])
    if sum(count >= 4 for count in counts) == 0:  # one label is large enough: whole labels may do, or nothing does
        with suppress(DataError):
            check(split(table, seed=seed))
        return
    made = split(table, seed=seed)
    check(made)
    kept = Counter(made.train.columns["label"])
    # Nothing takes a label's last row but one, unless the label is held out as a whole.
    assert all(kept[f"c{i}"] >= min(count, 2) or not kept[f"c{i}"] for i, count in enumerate(counts))


def test_small_labels_that_come_first_leave_enough_for_every_part() -> None:
    check(split(labelled([3, 3, 4, 20])))


def test_large_labels_give_their_share_and_rare_ones_train() -> None:
    made = split(labelled([100, 50, 50, 1]))
    assert Counter(made.test.columns["label"]) == {"c0": 19, "c1": 9, "c2": 9}
    assert Counter(made.dev.columns["label"]) == {"c0": 9, "c1": 4, "c2": 4}
    assert "c3" in made.train.columns["label"]


def test_a_label_of_three_rows_beside_one_other_is_refused_with_what_it_needs() -> None:
    with pytest.raises(
        DataError, match=r"a label needs 4 rows, 2 to train.*too small: 'c1' \(3\).*`test=...` and `dev=...`"
    ):
        split(labelled([60, 3]))
    check(split(labelled([60, 4])))


def test_held_out_files_that_cannot_be_scored(tmp_path: Path) -> None:
    def write(name: str, labels: list[str]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": f"{name} {i}", "label": x}) + "\n" for i, x in enumerate(labels)))
        return str(path)

    made = read_splits(
        write("a.jsonl", ["x", "y"] * 40), dev=write("d.jsonl", ["x"] * 9), test=write("t.jsonl", ["x", "y"])
    )
    with pytest.raises(DataError, match=r"d\.jsonl, dev rows: all 9 labels are 'x'; two .*dev=..."):
        check_scorable(made.dev, "dev")
    with pytest.raises(DataError, match=r"t\.jsonl, test rows: none of the 2 labels occurs twice"):
        check_scorable(made.test, "test")


@pytest.mark.parametrize(
    ("shape", "last", "message"),
    [
        (Shape.BINARY, ("label", [1, 1]), "all 2 labels are 1"),
        (Shape.SCORED, ("score", [0.5, 0.5]), "2 scores are equal"),
    ],
)
def test_held_out_pairs_that_are_all_alike(shape: Shape, last: tuple[str, list], message: str) -> None:
    table = Table(shape, {"sentence1": ["a", "b"], "sentence2": ["c", "d"], last[0]: last[1]}, "p")
    with pytest.raises(DataError, match=f"p, dev rows: .*{message}"):
        check_scorable(table, "dev")
