"""Rows of a file to a table: values checked and converted, rows with nothing in them dropped and counted."""

from __future__ import annotations

import math
from typing import Any

from scions.data.columns import BINARY_LABELS, RecognizedColumns, not_binary, number
from scions.data.files import Rows, excerpt
from scions.data.shapes import COLUMNS, Shape, Table
from scions.errors import DataError


class _Absent(Exception):
    """The field is missing, null or blank: the row is dropped, not refused."""


def _text(value: Any, where: str, column: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _Absent
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f"{where}: column {column!r} must hold text, found {kind} {excerpt(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character; tokenizers cannot take it
            at = f"{where}: column {column!r} holds half of a surrogate pair"
            raise DataError(f"{at} at character {error.start + 1}; escape the text again as UTF-8") from error
    return value


def _texts(value: Any, where: str, column: str) -> list[str]:
    texts = []
    for one in value if isinstance(value, list) else [value]:
        try:
            texts.append(_text(one, where, column))
        except _Absent:
            continue
    return texts


def _score(value: Any, where: str, column: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _Absent
    score = number(value)
    if score is None:
        raise DataError(f"{where}: column {column!r} must hold a number, found {excerpt(value)}")
    if not math.isfinite(score):
        raise DataError(f"{where}: column {column!r} must hold a finite number, found {score}")
    return score


def _label(value: Any, where: str, column: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _Absent
    if isinstance(value, (list, dict)) or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(f"{where}: column {column!r} must hold one label, found {excerpt(value)}")
    # a whole-number column with gaps comes out of parquet as floats
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _convert(shape: Shape, name: str, value: Any, where: str, column: str) -> Any:
    if name == "score":
        return _score(value, where, column)
    if name == "label":
        label = _label(value, where, column)
        if shape is Shape.LABELLED:
            return label
        if label.casefold() not in BINARY_LABELS:
            raise not_binary(where, column, [value])
        return BINARY_LABELS[label.casefold()]
    if shape is Shape.CANDIDATES and name != "query":
        texts = _texts(value, where, column)
        if not texts and name == "positive":
            raise _Absent
        return texts
    return _text(value, where, column)


def build(rows: Rows, recognized: RecognizedColumns) -> Table:
    """A table of the recognised columns.
    Rows whose needed field is missing, null or blank are dropped and counted in the notes. Raises DataError
    naming the line for a value of a wrong kind, and where more than half of the rows would be dropped.
    """
    shape, columns = recognized.shape, recognized.columns
    out: dict[str, list[Any]] = {name: [] for name in COLUMNS[shape]}
    group: list[str] | None = [] if "group" in columns else None
    dropped: dict[str, list[int]] = {}
    for i, row in enumerate(rows.rows):
        values: dict[str, Any] = {}
        where = rows.where(i)
        try:
            for name in COLUMNS[shape]:
                column = columns.get(name)
                if column is None:  # only the negatives of CANDIDATES may be absent
                    values[name] = []
                    continue
                values[name] = _convert(shape, name, row.get(column), where, column)
        except _Absent:
            dropped.setdefault(str(column), []).append(rows.places[i])
            continue
        for name, value in values.items():
            out[name].append(value)
        if group is not None:
            own = row.get(columns["group"])
            group.append(f"row {i}" if own in (None, "") else str(own))
    count = sum(map(len, dropped.values()))
    notes = [*rows.notes, *recognized.notes]
    for column, places in dropped.items():
        first = ", ".join(map(str, places[:5])) + (", …" if len(places) > 5 else "")
        many = "" if len(places) == 1 else "s"
        notes.append(f"dropped {len(places)} row{many} with nothing in column {column!r} ({rows.unit}{many} {first})")
    if count * 2 > len(rows.rows):
        raise DataError(
            f"{rows.path}: {count} of {len(rows.rows)} rows have nothing in a needed column; "
            f"{'; '.join(notes)}. Fill them in, or name other columns with --columns"
        )
    return Table(shape, out, rows.path, group=group, notes=notes)
