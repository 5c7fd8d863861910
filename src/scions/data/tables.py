"""Build a table from the rows of a file: check and convert values, drop and count rows that lack one."""

from __future__ import annotations

import math
from typing import Any

from scions.data.columns import BINARY_LABELS, RecognizedColumns, not_binary_error, parse_number
from scions.data.files import Rows, check_text, excerpt, shorten
from scions.data.shapes import COLUMNS, Shape, Table
from scions.errors import DataError


def build_table(rows: Rows, recognized: RecognizedColumns) -> Table:
    """Return a table of the recognized columns.

    Rows whose needed field is missing, null or blank are dropped and counted in the notes.

    Raises:
        DataError: a value of a wrong kind (names the line), or more than half of the rows would be dropped.
    """
    shape, columns = recognized.shape, recognized.columns
    table: dict[str, list[Any]] = {name: [] for name in COLUMNS[shape]}
    group: list[str] | None = [] if "group" in columns else None
    dropped: dict[str, list[int]] = {}  # column -> places of the rows that have nothing in it
    for i, row in enumerate(rows.rows):
        values: dict[str, Any] = {}
        for name in COLUMNS[shape]:
            column = columns.get(name)
            # only the negatives of CANDIDATES may be absent
            value = [] if column is None else _convert(shape, name, row.get(column), rows.where(i), column)
            if value is None:
                dropped.setdefault(str(column), []).append(rows.places[i])
                break
            values[name] = value
        else:
            for name, value in values.items():
                table[name].append(value)
            if group is not None:
                key = row.get(columns["group"])
                group.append(f"row {i}" if key in (None, "") else str(key))
    notes = list(recognized.notes)
    for column, places in dropped.items():
        s = "" if len(places) == 1 else "s"
        lines = f"{rows.unit}{s} {shorten(places)}"
        notes.append(f"dropped {len(places)} row{s} with nothing in column {column!r} ({lines})")
    count = sum(map(len, dropped.values()))
    if count * 2 > len(rows.rows):
        raise DataError(
            f"{rows.path}: {count} of {len(rows.rows)} rows have nothing in a needed column; "
            f"{'; '.join(notes)}. Fill them in, or name other columns with `columns=...`"
        )
    return Table(shape, table, rows.path, group=group, notes=notes)


def _convert(shape: Shape, name: str, value: Any, where: str, column: str) -> Any:
    """Return the value as the table holds it, None where there is nothing in it."""
    if shape is Shape.CANDIDATES and name != "query":
        items = value if isinstance(value, list) else [value]
        texts = [text for item in items if (text := check_text(item, where, f"column {column!r}")) is not None]
        return texts if texts or name == "negative" else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if name == "score":
        return _score(value, where, column)
    if name != "label":
        return check_text(value, where, f"column {column!r}")
    label = _label(value, where, column)
    if shape is Shape.LABELLED:
        return label
    if label.casefold() not in BINARY_LABELS:
        raise not_binary_error(where, column, [value])
    return BINARY_LABELS[label.casefold()]


def _score(value: Any, where: str, column: str) -> float:
    score = parse_number(value)
    if score is None:
        raise DataError(f"{where}: column {column!r} must hold a number, found {excerpt(value)}")
    if not math.isfinite(score):
        raise DataError(f"{where}: column {column!r} must hold a finite number, found {score}")
    return score


def _label(value: Any, where: str, column: str) -> str:
    if isinstance(value, (list, dict)) or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(f"{where}: column {column!r} must hold one label, found {excerpt(value)}")
    # a whole-number column with gaps comes out of parquet as floats
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
