"""Trainings on few rows: notes and errors."""

from __future__ import annotations

import json

import pytest

import scions.training.run as run
from scions.errors import AdapterError, DataError
from scions.training import plan, train

OUTCOMES = ("better", "no measurable difference", "worse")


def test_plain_texts_too_few_to_score(write, short, adapters_aside):
    with pytest.raises(DataError, match=r"dev rows: \d+ distinct texts .* needs 20.* 80 such texts will do"):
        train(write("texts", 60), "legal", **short)
    assert not adapters_aside.exists()


@pytest.mark.parametrize("rows", [80, 100])
def test_plain_texts_of_a_hundred_rows_train(write, short, rows):
    result = train(write("texts", rows), "legal", force=True, **short)
    assert result.manifest.data.rows["dev"] == result.manifest.data.rows["test"] == 20
    assert result.verdict.outcome in OUTCOMES


def _labels(path, counts):
    rows = [{"text": f"the court {i} of {label}", "label": label} for label, n in counts.items() for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_of_three_rows_train(short, tmp_path):
    result = train(_labels(tmp_path / "l.jsonl", {f"c{i}": 3 for i in range(12)}), "legal", force=True, **short)
    assert result.verdict.outcome in OUTCOMES
    assert result.verdict.base.value < 100  # labels that all stood alone would make it 100, whatever the encoder


def test_labels_that_train_nothing_are_noted_or_refused(short, tmp_path):
    held = {
        "dev": _labels(tmp_path / "d.jsonl", {"x": 3, "y": 3}),
        "test": _labels(tmp_path / "t.jsonl", {"v": 4, "w": 4}),
    }
    rows = [{"text": f"a pump {i}", "label": label} for i, label in enumerate(["x"] * 9 + ["y"] * 9 + ["lonely"])]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        "1 labels have a single training row and train nothing: 'lonely'"
        in plan(str(tmp_path / "l.jsonl"), dev=str(held["dev"]), test=str(held["test"]), **short).notes
    )
    rows = [{"text": f"a pump {i}", "label": f"c{i}"} for i in range(9)]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"no label has two training rows .*needs 2 rows to train and 4 "):
        train(tmp_path / "l.jsonl", "legal", **held, **short)


def test_notes_are_not_repeated(write, short, tmp_path):
    path = write("pairs")
    rows = [json.loads(line) | {"id": i} for i, line in enumerate(path.read_text().splitlines())]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"anchor": "x", "positive": None, "id": 9}]))
    notes = plan(str(path), general=str(path), **short).notes
    assert len([note for note in notes if "dropped 1 row" in note and "general" not in note]) == 1
    assert len([note for note in notes if "ignored columns: id" in note and "general" not in note]) == 1
    assert len([note for note in notes if note.startswith("general: dropped 1 row")]) == 1


def test_a_general_set_that_cannot_be_scored_is_found_before_the_training(write, short, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "general.txt").write_text("a court\n")
    with pytest.raises(DataError, match="halves needs 20"):
        train(write("pairs"), "legal", general=tmp_path / "general.txt", **short)


def test_a_read_only_adapters_folder_is_an_error_before_reading(short, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError, match="is no folder"):
        train("/nowhere/data.jsonl", "legal", adapters=tmp_path / "file", **short)


def test_labels_that_never_occur_twice(short, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"text": f"the court {i}", "label": f"c{i}"}) + "\n" for i in range(40)))
    with pytest.raises(DataError, match="label"):
        train(path, "legal", **short)


def test_mistakes_in_the_data_show_before_the_pairs_for_drift_are_read(tmp_path, short, monkeypatch):
    monkeypatch.setattr("scions.training.prepare.drift_pairs", lambda: pytest.fail("read before the data"))
    with pytest.raises(DataError, match="no such file"):
        train(tmp_path / "none.jsonl", "legal", **short)
