"""Stream the texts of a file, one a row, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scions.data.columns import AmbiguousColumns, recognize
from scions.data.files import (
    Rows,
    check_text,
    excerpt,
    file_format,
    iter_csv,
    iter_jsonl,
    iter_lines,
    iter_parquet,
    where,
)
from scions.data.shapes import Shape
from scions.errors import DataError


def iter_texts(path: str | Path, column: str | None = None) -> Iterator[str]:
    """Return an iterator over the texts of one file (txt, jsonl, csv, tsv, parquet; each also gzipped).

    Every row gives one text, in order, so that texts and rows have the same numbers. Blank lines of jsonl and csv are
    no rows; a blank line of a txt file is a row without a text. Only parquet.gz is held in memory. `column` None is
    recognized by name, or is the only text there is.

    Raises:
        DataError: naming file and line (parquet: row): no such file or column, an unknown kind of file, not UTF-8, a
            broken row, a row without a text; or several columns could be meant.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give one file of texts")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is not a regular file, and the texts are read twice; save them to a file first")
    kind = file_format(path)
    if kind == ".txt":
        if column not in (None, "text"):
            raise DataError(f"{path}: a .txt file has no columns; leave out `column=...`")
        return _checked(((f"{path}:{number}", line) for number, line in iter_lines(path)), "line")
    if kind == ".jsonl":
        values = _jsonl_values(path, column)
    else:
        values = _table_values(path, column, "row" if kind == ".parquet" else "line")
    return _checked(values, f"column {column!r}" if column else "text column")


def _checked(values: Iterator[tuple[str, Any]], field_name: str) -> Iterator[str]:
    for place, value in values:
        text = check_text(value, place, f"the {field_name}")
        if text is None:
            raise DataError(
                f"{place}: nothing in the {field_name}. Every row gets a vector, so that they stay aligned: "
                "put a text there or take the row out"
            )
        yield text


def _jsonl_values(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    chosen = None
    for number, row in iter_jsonl(path, strings=column is None):
        if isinstance(row, str):
            yield f"{path}:{number}", row
            continue
        chosen = chosen or _text_column(path, list(row), row, column, number)
        yield f"{path}:{number}", row.get(chosen)


def _table_values(path: Path, column: str | None, unit: str) -> Iterator[tuple[str, Any]]:
    iter_rows = iter_parquet if unit == "row" else iter_csv
    rows = iter_rows(path)
    _, names = next(rows, (0, ()))
    if column is None or column not in names:
        place, first = next(rows, (0, None))
        if first is None:
            return
        column = _text_column(path, list(names), dict(zip(names, first, strict=True)), column, place)
    rows = iter_rows(path, [column])  # of parquet, no other column is decoded
    next(rows)
    for place, (value,) in rows:
        yield where(path, place, unit), value


def _text_column(path: Path, names: list[str], sample: dict[str, Any], column: str | None, place: int) -> str:
    """Return the column of the text: the one asked for, or by its name or the first row."""
    if column is not None and column in names:
        return column
    rows = Rows(str(path), names, [sample], [place])
    try:
        return recognize(rows, Shape.TEXTS, {"text": column} if column else None).columns["text"]
    except AmbiguousColumns:
        row = ", ".join(f"{name}={excerpt(sample.get(name), 40)}" for name in names)
        raise DataError(
            f"{path}: cannot tell which column is the text. First row: {row}. Settle it with `column='NAME'`"
        ) from None
