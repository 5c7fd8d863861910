"""Texts one by one: every kind of file, every row accounted for, and each fault with its place."""

from __future__ import annotations

import gzip
import json

import pytest

from scions.data import read
from scions.data.texts import iter_texts
from scions.errors import DataError

TEXTS = ["the first", 'one, with "quotes"', "drei · три · 三", "a\u2028b"]


def _write(folder, kind):
    path = folder / f"texts.{kind}"
    if kind.startswith("txt"):
        data = "\n".join(TEXTS).encode()
    elif kind.startswith("jsonl"):
        data = "\n\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS)).encode() + b"\n"
    elif kind.startswith(("csv", "tsv")):
        import csv
        import io

        stream = io.StringIO(newline="")
        writer = csv.writer(stream, delimiter="\t" if kind.startswith("tsv") else ",")
        writer.writerows([["id", "text"], *([i, text] for i, text in enumerate(TEXTS))])
        data = b"\xef\xbb\xbf" + stream.getvalue().encode()
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        plain = folder / "plain.parquet"
        pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), plain)
        data = plain.read_bytes()
    path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_every_kind_gives_the_texts_that_reading_the_whole_file_gives(tmp_path, kind, zipped):
    path = _write(tmp_path, kind + zipped)
    assert list(iter_texts(path)) == TEXTS
    assert read(path, shape="texts").columns["text"] == TEXTS


def test_a_field_over_several_lines_is_one_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n\n"one\ntwo",1\nthree,2\n')
    assert list(iter_texts(path)) == ["one\ntwo", "three"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_kind_are_read_as_by_reading_the_whole_file(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(f'text,n{end}"one{end}two",1{end}{end}three,2'.encode())
    assert list(iter_texts(path)) == read(path, shape="texts").columns["text"] == [f"one{end}two", "three"]


def test_a_column_by_name(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"headline": "t", "summary": "s"}\n')
    assert list(iter_texts(path, "summary")) == ["s"]
    with pytest.raises(DataError, match=r"First row: headline='t', summary='s'\. Settle it with `column='NAME'`"):
        list(iter_texts(path))
    with pytest.raises(DataError, match="no column 'sumary'; did you mean 'summary'"):
        list(iter_texts(path, "sumary"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "the file is empty"),
        ("a.txt", b"one\n\nthree\n", r"a\.txt:2: nothing in the line"),
        ("a.txt", b"one\ntw\xff\n", r"a\.txt:2: not UTF-8"),
        ("a.txt", "one\n".encode("utf-16"), "UTF-16"),
        ("a.txt", b"one\n\0\n", r"a\.txt:2: holds a NUL"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', r"a\.jsonl:2: nothing in the text column"),
        ("a.jsonl", b'{"text": "a"}\n{"other": "b"}\n', r"a\.jsonl:2: nothing in the text column"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', r"a\.jsonl:2: the text column must hold text, found int"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', r"a\.jsonl:2: .*surrogate"),
        ("a.csv", b"text,n\na,1\nb\n", r"a\.csv:3: 1 fields where the header has 2"),
        ("a.csv", b'text,n\n"a,1\nb,2\n', r"a\.csv:2: broken quoting"),
        ("a.csv", b'text,n\n"  ",1\n', r"a\.csv:2: nothing in the text column"),
        ("a.parquet", b"no parquet", "not a readable parquet file"),
        ("a.txt.gz", gzip.compress(b"one\n" * 9999)[:-20], "not a whole gzip file"),
        ("a.json", b"{}", "unknown kind of file '.json'"),
    ],
)
def test_faults_name_their_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(iter_texts(path))


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(iter_texts(tmp_path / "none.txt"))
    with pytest.raises(DataError, match="is a folder"):
        list(iter_texts(tmp_path))


def test_a_null_in_parquet_is_named_by_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a", "b", None]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 3: nothing in"):
        list(iter_texts(tmp_path / "a.parquet"))


def test_texts_come_before_the_file_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n" * 100_000 + b"\xff\n")
    texts = iter_texts(path)
    assert [next(texts) for _ in range(3)] == ["good"] * 3
    with pytest.raises(DataError, match=":100001: not UTF-8"):
        list(texts)
