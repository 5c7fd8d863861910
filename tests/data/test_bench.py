"""The real bench data, where a folder of it is named by SCIONS_BENCH."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scions.data import Shape, check_trainable, read, read_splits

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif("SCIONS_BENCH" not in os.environ, reason="SCIONS_BENCH does not name the bench folder"),
]


@pytest.fixture(scope="module")
def bench() -> Path:
    return Path(os.environ["SCIONS_BENCH"])


def test_patents(bench: Path) -> None:
    start = time.perf_counter()
    tables = {part: read(bench / "patents", part=part) for part in ("train", "dev", "test")}
    assert time.perf_counter() - start < 5
    assert [len(table) for table in tables.values()] == [26219, 3221, 7033]
    assert all(table.shape is Shape.SCORED for table in tables.values())
    assert tables["train"].notes == ["ignored columns: context"]
    check_trainable(tables["train"])


def test_patents_from_one_file_never_share_a_row(bench: Path) -> None:
    made = read_splits(str(bench / "patents" / "train.jsonl"))
    assert len(made.dev) <= 2000
    assert len(made.test) <= 3000
    assert not set(made.train.columns["sentence1"]) & set(made.test.columns["sentence1"])


def test_medical(bench: Path) -> None:
    folder = bench / "medical"
    made = read_splits(
        str(folder / "rqe_train.jsonl"),
        dev=str(folder / "mqp_dev.jsonl"),
        test=str(folder / "mqp_test.jsonl"),
    )
    assert made.train.shape is made.test.shape is Shape.BINARY
    assert (len(made.dev), len(made.test)) == (560, 2488)
    assert 7000 < len(made.train) <= 7128


def test_banking77(bench: Path) -> None:
    table = read(bench / "banking77", part="train")
    assert (table.shape, len(table), len(set(table.columns["label"]))) == (Shape.LABELLED, 8982, 77)


def test_medquad(bench: Path) -> None:
    for part, count in (("train", 5751), ("dev", 839), ("test", 1755)):
        table = read(bench / "medquad", part=part)
        assert table.shape is Shape.RETRIEVAL
        assert len(table.corpus or {}) == 8345
        assert sum(map(len, table.columns["relevant"])) == count


def test_qatar_living(bench: Path) -> None:
    made = read_splits(str(bench / "qatar_living"))
    assert made.test.shape is Shape.CANDIDATES
    assert all(made.train.columns["positive"])


def test_stackoverflow(bench: Path) -> None:
    made = read_splits(str(bench / "stackoverflow"))
    assert made.train.shape is Shape.LABELLED
    assert not set(made.train.columns["label"]) & set(made.test.columns["label"])
