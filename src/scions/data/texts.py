"""The texts of a file one after another, in memory that does not grow with the file, each row accounted for."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

from scions.data.columns import AmbiguousColumns, recognize
from scions.data.files import _FIELD_LIMIT, FORMATS, Rows, excerpt, extension, missing, read_bytes
from scions.data.shapes import Shape
from scions.errors import DataError

_PARQUET_ROWS = 4096


def iter_texts(path: str | Path, column: str | None = None) -> Iterator[str]:
    """The texts of one file (txt, jsonl, csv, tsv, parquet; each also gzipped), in the order of its rows.

    Nothing is skipped: whoever numbers the texts numbers the rows. Lines without a row in them (blank lines of jsonl
    and csv) do not count; a blank line of a txt file is a row without a text. Only parquet.gz is held in memory.

    Args:
        path: the file.
        column: which column holds the text; None recognises it by name, or takes the only text there is.

    Raises:
        DataError: naming file and line (parquet: row): no such file or column, an unknown kind of file, not UTF-8, a
            broken row, a row without a text; or several columns could be meant.
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give one file of texts")
        if path.exists():
            raise DataError(f"{path}: is no ordinary file, and the texts are read twice; save them to a file first")
        raise missing(path)
    kind = extension(path)
    if kind not in FORMATS:
        raise DataError(
            f"{path}: unknown kind of file {kind or 'without extension'!r}; supported are {', '.join(FORMATS)}, "
            "each also with .gz"
        )
    if kind == ".txt":
        if column not in (None, "text"):
            raise DataError(f"{path}: a .txt file has no columns; leave out --column")
        return _checked(((f"{path}:{n}", line) for n, line in _lines(path)), "line")
    rows = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}[kind]
    return _checked(rows(path, column), f"column {column!r}" if column else "text column")


def _checked(values: Iterator[tuple[str, Any]], what: str) -> Iterator[str]:
    for where, value in values:
        if value is None or (isinstance(value, str) and not value.strip()):
            raise DataError(
                f"{where}: nothing in the {what}. Every row gets a vector, so that they stay aligned: "
                "put a text there or take the row out"
            )
        if not isinstance(value, str):
            raise DataError(f"{where}: the {what} must hold text, found {type(value).__name__} {excerpt(value)}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise DataError(f"{where}: the {what} holds half of a surrogate pair; escape it again") from error
        yield value


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines as the file has them, blank ones too, without their line ends."""
    number = 0
    try:
        with _open(path) as stream:
            for number, raw in enumerate(stream, start=1):
                if number == 1:
                    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                        raise DataError(f"{path}: encoded in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                try:
                    line = raw.decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x}); "
                        "convert it to UTF-8, for example: iconv -f LATIN1 -t UTF-8"
                    ) from error
                if "\0" in line:
                    raise DataError(f"{path}:{number}: holds a NUL character, so it is UTF-16 or no text file")
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}), broken after line {number}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if number == 0:
        raise DataError(f"{path}: the file is empty")


def _jsonl(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    known = False
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not valid JSON ({error}); the line starts {excerpt(line)}") from error
        if isinstance(row, str) and column is None:
            yield f"{path}:{number}", row
            continue
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: a JSON object a line is needed, found {excerpt(row)}")
        if not known:
            column, known = _column(path, list(row), row, column, number), True
        yield f"{path}:{number}", row.get(column)


def _csv(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    header: list[str] = []
    place, start = -1, 1
    limit = csv.field_size_limit(_FIELD_LIMIT)
    lines = (line + "\n" for _, line in _lines(path))
    reader = csv.reader(lines, delimiter="\t" if extension(path) == ".tsv" else ",", strict=True)
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}:{line}: {len(cells)} fields where the header has {len(header)}; "
                    f"quote fields that hold the delimiter. The line starts {excerpt(cells[0])}"
                )
            if place < 0:
                place = header.index(_column(path, header, dict(zip(header, cells, strict=True)), column, line))
            yield f"{path}:{line}", cells[place]
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: broken quoting ({error}); a quote in a quoted field is written twice"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    with ExitStack() as stack:
        try:
            zipped = path.name.lower().endswith(".gz")
            file = stack.enter_context(pq.ParquetFile(pa.BufferReader(read_bytes(path)) if zipped else path))
            names = list(file.schema_arrow.names)
            if file.metadata.num_rows == 0:
                return
            if column is None or column not in names:
                sample = next(file.iter_batches(batch_size=1)).to_pylist()[0]
                column = _column(path, names, sample, column, 1)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    rows += 1
                    yield f"{path}, row {rows}", value
        except (pa.ArrowException, OSError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"{path}: not a readable parquet file ({first})") from error


def _column(path: Path, names: list[str], sample: dict[str, Any], wanted: str | None, place: int) -> str:
    """The column of the text, from its name or from a first row."""
    if wanted is not None and wanted in names:
        return wanted
    rows = Rows(str(path), names, [sample], [place])
    try:
        return recognize(rows, Shape.TEXTS, {"text": wanted} if wanted else None).columns["text"]
    except AmbiguousColumns:
        row = ", ".join(f"{name}={excerpt(sample.get(name), 40)}" for name in names)
        raise DataError(
            f"{path}: cannot tell which column is the text. First row: {row}. Settle it with --column NAME"
        ) from None
