from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scions.data import Shape, read
from scions.errors import DataError, UsageError


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def jsonl(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ROWS = [{"anchor": "a cat", "positive": "ein Kätzchen"}, {"anchor": 'say "hi",\nyou', "positive": "x\ty"}]


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_each_format_plain_and_gzipped(tmp_path: Path, kind: str, zipped: str) -> None:
    import csv
    import io

    path = tmp_path / f"data.{kind}{zipped}"
    if kind == "txt":
        table = read(write(path, "one text\r\n\n  \nzwei Wörter\u2028here\n"))
        assert table.shape is Shape.TEXTS
        assert table.columns["text"] == ["one text", "zwei Wörter\u2028here"]
        return
    if kind == "jsonl":
        content: str | bytes = jsonl(ROWS)
    elif kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(ROWS), sink)
        content = sink.getvalue()
    else:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ["anchor", "positive"], delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(ROWS)
        content = out.getvalue()
    table = read(write(path, content))
    assert table.shape is Shape.PAIRS
    assert table.columns == {name: [row[name] for row in ROWS] for name in ("anchor", "positive")}


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1).filter(
    lambda text: bool(text.strip())
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_formats_carry_the_same_rows(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    import csv

    rows = [{"query": a, "answer": b} for a, b in pairs]
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["query", "answer"], *pairs])
    write(tmp_path / "a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write(tmp_path / "a.jsonl.gz", jsonl(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    write(tmp_path / "a.parquet.gz", (tmp_path / "a.parquet").read_bytes())
    want = {"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]}
    for name in ("a.csv", "a.jsonl", "a.jsonl.gz", "a.parquet", "a.parquet.gz"):
        assert read(tmp_path / name).columns == want


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.jsonl", "\n \n", "is empty"),
        ("a.parquet", b"", "is empty"),
        ("a.csv", "text,label\n", "columns text, label but no rows"),
        (
            "a.jsonl",
            '{"text": "fine"}\n{"text": "bro\n',
            r"a\.jsonl:2: not valid JSON .*starts '{\"text\": \"bro'",
        ),
        ("a.jsonl", '{"text": "fine"}\n\n["x"]\n', r"a\.jsonl:3: a JSON object a line is needed, found list"),
        ("a.jsonl", '[\n{"text": "x"}]\n', r":1: not valid JSON .*not one array"),
        (
            "a.jsonl",
            '{"text": "ok"}\n{"text": 7}\n',
            r"a\.jsonl:2: column 'text' must hold text, found int 7",
        ),
        ("a.jsonl", '{"text": "ok"}\n{"text": "\\ud83d"}\n', r"a\.jsonl:2: .*surrogate"),
        ("a.txt", "gut\nsch\u00f6n\n".encode("latin-1"), r"a\.txt:2: not UTF-8 \(byte 0xf6 at offset 7\)"),
        ("a.txt", "hello".encode("utf-16"), "UTF-16"),
        ("a.txt", "hello\nyou".encode("utf-16-le"), "NUL"),
        ("a.csv", 'text,label\n"two\nlines",x\nonly one\n', r"a\.csv:4: 1 fields where the header has 2"),
        ("a.csv", 'text,label\nfine,x\n"left open,x\n', r"a\.csv:3: broken quoting"),
        ("a.csv", "text,text\na,b\n", "names column 'text' twice"),
        ("a.parquet", b"PAR1 nonsense", r"a\.parquet: not a readable parquet"),
        ("a.xlsx", "x", r"'\.xlsx'; supported are \.txt, \.jsonl, \.csv, \.tsv, \.parquet"),
        ("a.json", "[]", r"name it \.jsonl"),
        ("noextension", "x", "without extension"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path / name, content))
    assert name in str(caught.value)


def test_broken_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text("not gzip")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"some text" * 100)[:-12])
    for name in ("a.jsonl.gz", "cut.txt.gz"):
        with pytest.raises(DataError, match=f"{name}: not a whole gzip file"):
            read(tmp_path / name)


def test_missing_file_suggests_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "{}")
    with pytest.raises(DataError, match=r"no such file.*did you mean .*train\.jsonl"):
        read(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match="no folder"):
        read(tmp_path / "nowhere" / "train.jsonl")


def test_bom_of_utf8_is_accepted_and_does_not_stick_to_the_header(tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.csv", b"\xef\xbb\xbf" + b"text,label\nhi there,x\n"))
    assert table.shape is Shape.LABELLED
    # the offset in an error still counts the mark
    with pytest.raises(DataError, match=r":2: .*offset 6\)"):
        read(write(tmp_path / "b.txt", b"\xef\xbb\xbfa\n" + b"b\xff"))


def test_long_texts_and_large_fields_pass_whole(tmp_path: Path) -> None:
    import csv

    long = "word " * 40_000
    before = csv.field_size_limit()
    table = read(write(tmp_path / "a.csv", f'text,label\n"{long}",x\n'))
    assert table.columns["text"] == [long]
    assert csv.field_size_limit() == before
    assert read(write(tmp_path / "a.jsonl", jsonl([{"text": long}]))).columns["text"] == [long]


def test_rows_without_text_are_dropped_counted_and_named(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "x"},
        {"text": None, "label": "x"},
        {"label": "x"},
        {"text": " ", "label": "y"},
    ]
    rows += [{"text": f"t{i}", "label": "y"} for i in range(4)]
    table = read(write(tmp_path / "a.jsonl", jsonl(rows)))
    assert len(table) == 5
    assert "dropped 3 rows with nothing in column 'text' (lines 2, 3, 4)" in table.notes
    with pytest.raises(DataError, match="3 of 4 rows have nothing"):
        read(write(tmp_path / "b.jsonl", jsonl(rows[:4])))


def test_one_row_reads(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "a.txt", "only one"))) == 1


def test_folder_without_known_files_says_what_it_must_hold(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", "x")
    with pytest.raises(DataError, match=r"holds notes\.md; a data folder holds train\.\*"):
        read(tmp_path)


def test_a_folder_of_parts_needs_the_part_named(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "a")
    write(tmp_path / "valid.txt", "b")
    with pytest.raises(UsageError, match="several parts"):
        read(tmp_path)
    assert read(tmp_path, part="dev").columns["text"] == ["b"]
    with pytest.raises(UsageError, match="no part 'test'"):
        read(tmp_path, part="test")
