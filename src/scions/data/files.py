"""Read rows of txt, jsonl, csv, tsv and parquet files, plain or gzipped, each with its place in the file.

The `iter_` functions stream: their memory does not grow with the file (except for `.parquet.gz`).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from scions.errors import DataError

FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
_FIELD_LIMIT = 2**31 - 1  # the csv module keeps it in a C long, which is 32 bits wide on some systems
_BATCH_ROWS = 4096


@dataclass
class Rows:
    """Rows of a file as dicts of raw values; `places[i]` is the line (parquet: row) where row i starts."""

    path: str
    columns: list[str]
    rows: list[dict[str, Any]]
    places: list[int]
    unit: str = "line"

    def where(self, index: int) -> str:
        """Return `path:line` of row `index`, for messages."""
        return where(self.path, self.places[index], self.unit)


def where(path: str | Path, place: int, unit: str) -> str:
    """Return `path:line`, or `path, row n`, for messages."""
    return f"{path}:{place}" if unit == "line" else f"{path}, {unit} {place}"


def read_rows(path: Path) -> Rows:
    """Return all rows of one file; blank lines are skipped.

    Raises:
        DataError: unknown extension, missing, unreadable, empty, not UTF-8, or a row that breaks the format.
    """
    kind = file_format(path)
    names: dict[str, Any] = {}
    numbered: Iterator[tuple[int, dict[str, Any]]]
    if kind == ".txt":
        numbered = ((number, {"text": line}) for number, line in iter_lines(path) if line.strip())
    elif kind == ".jsonl":
        numbered = iter_jsonl(path)
    else:
        table = iter_parquet(path) if kind == ".parquet" else iter_csv(path)
        header = next(table, (0, ()))[1]
        names = dict.fromkeys(header)
        if len(names) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise DataError(f"{path}: the header names column {twice!r} twice")
        numbered = ((number, dict(zip(names, values, strict=True))) for number, values in table)
    rows = Rows(str(path), [], [], [], unit="row" if kind == ".parquet" else "line")
    for number, row in numbered:
        names.update(row)  # columns in order of first appearance
        rows.rows.append(row)
        rows.places.append(number)
    rows.columns = list(names)
    if not rows.rows:
        reason = f"has columns {', '.join(names)} but no rows" if names else "the file is empty"
        raise DataError(f"{path}: {reason}")
    return rows


def extension(path: Path) -> str:
    """Return the format's extension, lower case, without a trailing `.gz`: `a.parquet.gz` -> `.parquet`."""
    name = path.name.lower()
    return Path(name[:-3] if name.endswith(".gz") else name).suffix


def file_format(path: Path) -> str:
    """Return the extension of an existing file of a known format. Raises DataError for any other path."""
    if not path.exists():
        raise missing_file(path)
    kind = extension(path)
    if kind not in FORMATS:
        hint = "; write one JSON object a line and name it .jsonl" if kind == ".json" else ""
        raise DataError(
            f"{path}: unknown kind of file {kind or 'without extension'!r}; supported are {', '.join(FORMATS)}, "
            f"each also with .gz{hint}"
        )
    return kind


def missing_file(path: Path) -> DataError:
    """Return the error for a path that does not exist, with the nearest name beside it."""
    if not path.parent.is_dir():
        return DataError(f"{path}: no such file, and no folder {path.parent}")
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return DataError(f"{path}: no such file or folder" + (f"; did you mean {path.parent / near[0]}?" if near else ""))


def excerpt(value: object, width: int = 60) -> str:
    """Return the `repr` of a value, cut so that a message stays readable."""
    if isinstance(value, str):
        return repr(value if len(value) <= width else value[:width] + "…")
    text = repr(value)
    return text if len(text) <= width else text[:width] + "…"


def shorten(items: Sequence[object], limit: int = 5) -> str:
    """Return the first items for a message, separated by commas."""
    return ", ".join(map(str, items[:limit])) + (", …" if len(items) > limit else "")


def check_text(value: Any, where: str, field_name: str) -> str | None:
    """Return a text unchanged, None where there is none (null, missing or blank).

    Raises:
        DataError: the value is no text, or cannot be written as UTF-8.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise DataError(f"{where}: {field_name} must hold text, found {type(value).__name__} {excerpt(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character; tokenizers cannot take it
            problem = f"{where}: {field_name} holds half of a surrogate pair"
            raise DataError(f"{problem} at character {error.start + 1}; escape the text again as UTF-8") from error
    return value


def iter_lines(path: Path, *, keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file in UTF-8, blank ones too; a byte order mark is dropped.

    Raises:
        DataError: naming file and line: not UTF-8, a NUL character, a broken gzip file, unreadable, or no lines at all.
    """
    number = offset = 0
    try:
        with _open(path) as stream:
            # str.splitlines would also cut at U+2028 and other characters that are part of a text
            for number, raw in enumerate(stream, start=1):
                if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError(f"{path}: encoded in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
                try:
                    line = raw.decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x} at offset {offset + error.start}); "
                        "convert it to UTF-8, for example: iconv -f LATIN1 -t UTF-8"
                    ) from error
                if "\0" in line:
                    raise DataError(
                        f"{path}:{number}: holds a NUL character, so it is UTF-16 or no text file; convert it to UTF-8"
                    )
                if number == 1:
                    line = line.removeprefix("\ufeff")
                yield number, line if keep_ends else line.removesuffix("\n").removesuffix("\r")
                offset += len(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _broken_gzip(path, error, f", broken after line {number}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if number == 0:
        raise DataError(f"{path}: the file is empty")


def iter_jsonl(path: Path, *, strings: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield the JSON object of each line with its number, with `strings` also a bare string; blank lines are skipped.

    Raises:
        DataError: as `iter_lines`, or a line is something else.
    """
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            hint = "; one JSON object a line is needed, not one array" if line.lstrip().startswith("[") else ""
            raise DataError(
                f"{path}:{number}: not valid JSON ({reason}){hint}; the line starts {excerpt(line)}"
            ) from error
        if not isinstance(row, dict) and not (strings and isinstance(row, str)):
            kind = type(row).__name__
            raise DataError(f"{path}:{number}: a JSON object a line is needed, found {kind}: {excerpt(row)}")
        yield number, row


def iter_csv(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the names in the header of a .csv or .tsv file, then the fields of each row, with the line each starts on.

    Quoted fields may hold line breaks; blank lines are skipped. `columns` are those to yield, None for all.

    Raises:
        DataError: as `iter_lines`, broken quoting, or a row that is not as long as the header.
    """
    names: list[str] = []
    start = 1
    limit = csv.field_size_limit(_FIELD_LIMIT)
    # strict: without it a quote left open swallows the rest of the file in silence
    reader = csv.reader(_csv_lines(path), delimiter="\t" if extension(path) == ".tsv" else ",", strict=True)
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not names:
                cells = names = [cell.strip() or f"(unnamed {i})" for i, cell in enumerate(cells, start=1)]
            if len(cells) != len(names):
                raise DataError(
                    f"{path}:{line}: {len(cells)} fields where the header has {len(names)} "
                    f"({', '.join(map(excerpt, names))}); quote fields that hold the delimiter. "
                    f"The line starts {excerpt(cells[0])}"
                )
            yield line, cells if columns is None else [cells[names.index(name)] for name in columns]
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: broken quoting ({error}); a quote inside a quoted field is written twice"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _csv_lines(path: Path) -> Iterator[str]:
    # As the csv module wants them: line ends are part of the line, and a carriage return alone is one too.
    for _, line in iter_lines(path, keep_ends=True):
        if "\r" in line.removesuffix("\r\n"):
            yield from io.StringIO(line, newline="")
        else:
            yield line


def iter_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield the names of a parquet file's columns, then the values of each row with its number.

    `columns` are those to read, None for all; `.parquet.gz` is gunzipped into memory.

    Raises:
        DataError: the file is empty or not a readable parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        source: Any = path
        if path.name.lower().endswith(".gz"):
            try:
                source = io.BytesIO(gzip.decompress(path.read_bytes()))
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise _broken_gzip(path, error) from error
        elif path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        with pq.ParquetFile(source) as file:
            yield 0, columns or file.schema_arrow.names
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, values
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable parquet file ({reason})") from error


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return open(path, "rb")


def _broken_gzip(path: Path, error: Exception, where: str = "") -> DataError:
    return DataError(f"{path}: not a whole gzip file ({error}){where}; compress it again or name it without .gz")
