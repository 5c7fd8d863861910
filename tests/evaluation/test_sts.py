from __future__ import annotations

import json
import re

import numpy as np
import pytest

from scions.errors import DataError, UsageError
from scions.evaluation import STS_TASKS, drift, drift_of, evaluate_sts, interval, paired_difference


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for task in STS_TASKS:
        with (tmp_path / f"{task}.jsonl").open("w") as out:
            for i in range(12):
                shared = int(rng.integers(0, 5))
                first = " ".join(f"{task}{i}w{j}" for j in range(5))
                second = " ".join(f"{task}{i}{'w' if j < shared else 'v'}{j}" for j in range(5))
                out.write(
                    json.dumps({"sentence1": first, "sentence2": second, "score": shared + int(rng.integers(0, 3))})
                    + "\n"
                )
    return tmp_path


def test_sts7_is_the_mean_of_the_seven(words, folder):
    result = evaluate_sts(words, folder)
    assert list(result) == [*STS_TASKS, "STS7"]
    assert result["STS7"].value == pytest.approx(np.mean([result[task].value for task in STS_TASKS]))
    assert result["STS7"].n == 84
    assert result["STS7"].value > 50


def test_sts7_resamples_each_task_on_its_own_rows(words, folder):
    result = evaluate_sts(words, folder)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(12, size=12) for _ in STS_TASKS]
    together = np.concatenate([12 * i + rows for i, rows in enumerate(drawn)])
    apart = [result[task].resampled("spearman", rows) for task, rows in zip(STS_TASKS, drawn, strict=True)]
    shuffled = rng.permutation(together)
    assert result["STS7"].resampled("spearman", shuffled) == pytest.approx(np.mean(apart))
    assert interval(result["STS7"], samples=50).low < result["STS7"].value < 100


def test_a_pairing_of_sts7_with_itself_is_zero(words, folder):
    result = evaluate_sts(words, folder)["STS7"]
    difference = paired_difference(result, result, samples=20)
    assert (difference.value, difference.differing, difference.direction) == (0, 0, 0)


def test_a_missing_file_names_all_seven(words, folder):
    (folder / "sts14.jsonl").unlink()
    with pytest.raises(DataError, match=r"sts14.jsonl not found. STS7 needs all seven: sts12.jsonl, .*sickr.jsonl"):
        evaluate_sts(words, folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "not valid JSON"),
        (b'["a", "b", 1]', "a JSON object a line is needed"),
        (b'{"sentence1": "a", "sentence2": "b"}', "score must be a finite number, found None"),
        (b'{"sentence1": "a", "sentence2": "b", "score": "high"}', "score must be a finite number, found 'high'"),
        (b'{"sentence1": "a", "sentence2": "b", "score": NaN}', "score must be a finite number, found nan"),
        (b'{"sentence1": null, "sentence2": "b", "score": 1}', "sentence1 and sentence2 must hold text"),
        (b'{"sentence1": "a", "sentence2": 5, "score": 1}', "sentence1 and sentence2 must hold text"),
        (b'{"sentence1": "caf\xe9", "sentence2": "b", "score": 1}', "not UTF-8 (byte 0xe9 "),
    ],
)
def test_a_broken_line_is_named(words, folder, line, message):
    with (folder / "sickr.jsonl").open("ab") as out:
        out.write(line + b"\n")
    with pytest.raises(DataError, match=r"sickr\.jsonl:13: " + re.escape(message)):
        evaluate_sts(words, folder)


def test_files_that_say_nothing(words, folder):
    rows = (folder / "sts13.jsonl").read_text()
    (folder / "sts13.jsonl").write_text("\ufeff" + rows)
    assert evaluate_sts(words, folder)["sts13"].n == 12  # a byte order mark is no fault
    (folder / "sts13.jsonl").write_text(rows.splitlines()[0])
    with pytest.raises(DataError, match=r"sts13\.jsonl: all 1 scores are equal"):
        evaluate_sts(words, folder)
    (folder / "sts13.jsonl").write_text("")
    with pytest.raises(DataError, match=r"sts13\.jsonl: the file is empty"):
        evaluate_sts(words, folder)
    with pytest.raises(DataError, match=r"sts13\.jsonl: is no folder"):
        evaluate_sts(words, folder / "sts13.jsonl")


def test_drift():
    before = np.array([0.1, 0.2, 0.3, 0.4])
    assert drift(before, before**3) == pytest.approx(100.0)
    assert drift(before, -before) == pytest.approx(-100.0)
    with pytest.raises(UsageError, match="same pairs"):
        drift(before, before[:3])


def test_drift_of_one_encoder_with_itself_is_100(words):
    pairs = [("a b c", "a b d"), ("a b", "x y"), ("k l m", "k n o"), ("p", "p")]
    assert drift_of(words, words, pairs) == pytest.approx(100.0)
