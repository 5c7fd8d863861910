"""Files to rows: txt, jsonl, csv, tsv and parquet, plain or gzipped, each row with its place in the file."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scions.errors import DataError

FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
_FIELD_LIMIT = 2**31 - 1  # the csv module keeps it in a C long, which is 32 bits wide on some systems


@dataclass
class Rows:
    """Rows of a file as dicts of raw values; `places[i]` is the line (parquet: row) where row i starts."""

    path: str
    columns: list[str]
    rows: list[dict[str, Any]]
    places: list[int]
    unit: str = "line"
    notes: list[str] = field(default_factory=list)

    def where(self, index: int) -> str:
        """`path:line` of row `index`, for messages."""
        if self.unit == "line":
            return f"{self.path}:{self.places[index]}"
        return f"{self.path}, {self.unit} {self.places[index]}"


def excerpt(value: object, width: int = 60) -> str:
    """`repr` of a value, cut so that a message stays readable."""
    if isinstance(value, str):
        return repr(value if len(value) <= width else value[:width] + "…")
    text = repr(value)
    return text if len(text) <= width else text[:width] + "…"


def extension(path: Path) -> str:
    """The format's extension, lower case, without a trailing `.gz`: `a.parquet.gz` -> `.parquet`."""
    name = path.name.lower()
    return Path(name[:-3] if name.endswith(".gz") else name).suffix


def missing(path: Path) -> DataError:
    """The error for a path that does not exist, with the nearest name beside it."""
    if not path.parent.is_dir():
        return DataError(f"{path}: no such file, and no folder {path.parent}")
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return DataError(f"{path}: no such file or folder" + (f"; did you mean {path.parent / near[0]}?" if near else ""))


def read_bytes(path: Path) -> bytes:
    """A file's content, gunzipped where its name ends in `.gz`. Raises DataError naming the file."""
    if not path.exists():
        raise missing(path)
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.name.lower().endswith(".gz") else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); compress it again or name it without .gz") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_text(path: Path) -> str:
    """A file's text: UTF-8, with or without a byte order mark. Else a DataError with the place."""
    data = read_bytes(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: encoded in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the codec counts from after the byte order mark
        start = error.start + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
        line = data.count(b"\n", 0, start) + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[start]:02x} at offset {start}); "
            "convert it to UTF-8, for example: iconv -f LATIN1 -t UTF-8"
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise DataError(f"{path}:{line}: holds a NUL character, so it is UTF-16 or no text file; convert it to UTF-8")
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # str.splitlines would also cut at U+2028 and other characters that may stand inside a text
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_txt(path: Path) -> Rows:
    """One text a line; blank lines are skipped."""
    numbered = list(_lines(path))
    return Rows(str(path), ["text"], [{"text": line} for _, line in numbered], [number for number, _ in numbered])


def read_jsonl(path: Path) -> Rows:
    """One JSON object a line; columns are all keys, in order of first appearance."""
    found: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            hint = "; one JSON object a line is needed, not one array" if line.lstrip().startswith("[") else ""
            start = excerpt(line)
            raise DataError(f"{path}:{number}: not valid JSON ({reason}){hint}; the line starts {start}") from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(f"{path}:{number}: a JSON object a line is needed, found {kind}: {excerpt(row)}")
        found.update(dict.fromkeys(row))
        rows.append(row)
        places.append(number)
    return Rows(str(path), list(found), rows, places)


def read_csv(path: Path) -> Rows:
    """Comma (.csv) or tab (.tsv) separated, with a header line; quoted fields may hold line breaks."""
    text = read_text(path)
    delimiter = "\t" if extension(path) == ".tsv" else ","
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    header: list[str] = []
    limit = csv.field_size_limit(_FIELD_LIMIT)
    # strict: without it a quote left open swallows the rest of the file in silence
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = [cell.strip() or f"(unnamed {i})" for i, cell in enumerate(cells, start=1)]
                twice = next((name for name in header if header.count(name) > 1), None)
                if twice is not None:
                    raise DataError(f"{path}:{line}: the header names column {twice!r} twice")
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}:{line}: {len(cells)} fields where the header has {len(header)} "
                    f"({', '.join(map(excerpt, header))}); quote fields that hold the delimiter. "
                    f"The line starts {excerpt(cells[0])}"
                )
            rows.append(dict(zip(header, cells, strict=True)))
            places.append(line)
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: broken quoting ({error}); a quote inside a quoted field is written twice"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return Rows(str(path), header, rows, places)


def read_parquet(path: Path) -> Rows:
    """A parquet file; `.parquet.gz` is gunzipped into memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path)
    if not data:
        raise DataError(f"{path}: the file is empty")
    try:
        table = pq.read_table(pa.BufferReader(data))
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: not a readable parquet file ({first})") from error
    return Rows(str(path), list(table.column_names), rows, list(range(1, len(rows) + 1)), unit="row")


def read_rows(path: Path) -> Rows:
    """The rows of one file, by its extension.
    Raises DataError: unknown extension, missing, unreadable, empty, not UTF-8, or a row that breaks the
    format.
    """
    kind = extension(path)
    readers = {
        ".txt": read_txt,
        ".jsonl": read_jsonl,
        ".csv": read_csv,
        ".tsv": read_csv,
        ".parquet": read_parquet,
    }
    if not path.exists():
        raise missing(path)
    if kind not in readers:
        hint = "; write one JSON object a line and name it .jsonl" if kind == ".json" else ""
        raise DataError(
            f"{path}: unknown kind of file {kind or 'without extension'!r}; supported are "
            f"{', '.join(FORMATS)}, each also with .gz, or a BEIR folder{hint}"
        )
    rows = readers[kind](path)
    if not rows.rows:
        raise DataError(f"{path}: has columns {', '.join(rows.columns) or 'none'} but no rows")
    return rows
