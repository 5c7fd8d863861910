from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from scions.data import Shape, read, read_splits
from scions.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = [{"_id": f"d{i}", "title": "Title" if i == 0 else "", "text": f"document {i}"} for i in range(40)]
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(40)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (tmp_path / "qrels").mkdir()
    judge(tmp_path, "train", [(f"q{i}", f"d{i}", 1) for i in range(30)])
    judge(tmp_path, "test", [(f"q{i}", f"d{i}", 2) for i in range(30, 40)])
    return tmp_path


def judge(folder: Path, part: str, rows: list[tuple[str, str, object]]) -> None:
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
    (folder / "qrels" / f"{part}.tsv").write_text("\n".join(lines) + "\n")


def test_a_part_is_queries_with_graded_documents(folder: Path) -> None:
    table = read(folder, part="test")
    assert table.shape is Shape.RETRIEVAL
    assert table.columns["query"][0] == "query 30"
    assert table.columns["relevant"][0] == {"d30": 2.0}
    assert table.corpus is not None
    assert table.corpus["d0"] == "Title document 0"
    assert table.corpus["d1"] == "document 1"
    assert len(table.texts()) == 50


def test_gzipped_parts_read_the_same(folder: Path) -> None:
    plain = read(folder, part="test")
    for path in [*folder.glob("*.jsonl"), folder / "qrels" / "test.tsv"]:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    again = read(folder, part="test")
    assert (again.columns, again.corpus) == (plain.columns, plain.corpus)


def test_unknown_ids_are_counted_or_refused(folder: Path) -> None:
    judge(folder, "test", [("q30", "d30", 1), ("q31", "nowhere", 1), ("nobody", "d1", 1), ("q32", "d32", 0)])
    table = read(folder, part="test")
    assert len(table) == 1
    assert any("2 judgements with unknown or empty ids left out (lines 3, 4)" in note for note in table.notes)
    assert any("1 judgements with score 0 or less" in note for note in table.notes)
    judge(folder, "test", [("a", "b", 1), ("c", "d", 1)])
    with pytest.raises(DataError, match="all 2 judgements name ids"):
        read(folder, part="test")


@pytest.mark.parametrize(
    ("line", "message"),
    [("q1 0 d1 1", r"test\.tsv:2: 1 fields"), ("q1\td1\tgood", r"test\.tsv:2: the score must be a number")],
)
def test_broken_judgements_name_the_line(folder: Path, line: str, message: str) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    with pytest.raises(DataError, match=message):
        read(folder, part="test")


def test_judgements_without_a_header_lose_no_row(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq2\td2\t1\n")
    assert len(read(folder, part="test")) == 2


def test_header_only_judgements(folder: Path) -> None:
    judge(folder, "test", [])
    with pytest.raises(DataError, match="no judgements"):
        read(folder, part="test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "d1", "text": "again"}, r"corpus\.jsonl:41: duplicate _id 'd1' in corpus"),
        ({"text": "x"}, r"corpus\.jsonl:41: an entry needs an '_id'"),
        ({"_id": "new", "text": 5}, r"corpus\.jsonl:41: field 'text' must hold text, found int 5"),
    ],
)
def test_broken_documents_name_the_line(folder: Path, row: dict, message: str) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        read(folder, part="test")


def test_the_part_must_be_named_where_there_are_several(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"several parts.*test, train"):
        read(folder)
    with pytest.raises(UsageError, match="no part 'validation'; the folder has: test, train"):
        read(folder, part="validation")


def test_splits_share_the_corpus_and_make_up_the_missing_dev(folder: Path) -> None:
    made = read_splits(str(folder))
    assert [len(part) for part in (made.train, made.dev, made.test)] == [27, 3, 10]
    assert made.train.corpus is made.test.corpus


def test_a_test_query_is_taken_out_of_train(folder: Path) -> None:
    with (folder / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "twin", "text": "Query  30"}) + "\n")
    judge(folder, "train", [*((f"q{i}", f"d{i}", 1) for i in range(29)), ("twin", "d5", 1)])
    made = read_splits(str(folder))
    assert "Query  30" not in made.train.columns["query"] + made.dev.columns["query"]
    assert "removed 1 rows of train that are also in test" in made.notes


def test_documents_as_texts_with_retrieval_as_test(folder: Path) -> None:
    made = read_splits(str(folder), shape="texts")
    assert (made.train.shape, made.dev.shape, made.test.shape) == (Shape.TEXTS, Shape.TEXTS, Shape.RETRIEVAL)
    assert len(made.train) + len(made.dev) == 40
    with pytest.raises(DataError, match="not scored"):
        read_splits(str(folder), shape="scored")


def test_no_train_judgements(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(DataError, match=r"no qrels/train\.tsv to train on"):
        read_splits(str(folder))


def test_queries_that_stand_in_the_corpus_are_known_by_their_ids(tmp_path):
    (tmp_path / "qrels").mkdir()
    for name in ("queries", "corpus"):
        lines = [{"_id": str(i), "title": "t" if name == "corpus" else "", "text": f"text {i}"} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n0\t1\t1\n1\t1\t1\n")
    table = read(str(tmp_path), part="test")
    assert table.ids == ["0", "1"]
    assert "1 of 2 queries have a document of their own id" in " ".join(table.notes)
