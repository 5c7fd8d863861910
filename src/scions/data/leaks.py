"""Drop duplicate rows within a part, and rows of train and dev that are also in a held-out part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scions.data.groups import normalize
from scions.data.shapes import Shape, Splits, Table
from scions.errors import DataError

_BY_QUERY = (Shape.RETRIEVAL, Shape.CANDIDATES)


def row_content(table: Table) -> Iterator[str]:
    """Yield each row as canonical JSON: equal for equal rows, whatever file they came from."""
    for values in table.rows():
        yield json.dumps(values, ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def drop_duplicates(table: Table) -> Table:
    """Return the table without exact duplicates of earlier rows, counted in its notes."""
    first: dict[str, int] = {}
    for index, content in enumerate(row_content(table)):
        first.setdefault(content, index)
    count = len(table) - len(first)
    if not count:
        return table
    unique = table.take(list(first.values()))
    unique.notes.append(f"removed {count} exact duplicate row{'' if count == 1 else 's'}")
    return unique


def _identities(table: Table, by_query: bool) -> list[Any]:
    """Return what identifies each row in other tables: its text or its unordered pair, never score or label."""
    if table.shape in _BY_QUERY:
        return [(normalize(query),) for query in table.columns["query"]]
    return [tuple(sorted(normalize(text) for text in texts[: 1 if by_query else 2])) for texts in table.row_texts()]


def drop_shared_rows(table: Table, other: Table) -> tuple[Table, int]:
    """Return `table` without the rows that are also in `other`, and their number.

    Where either table is RETRIEVAL or CANDIDATES, rows are the same when their queries are.
    """
    by_query = table.shape in _BY_QUERY or other.shape in _BY_QUERY
    shared = set(_identities(other, by_query))
    keep = [i for i, identity in enumerate(_identities(table, by_query)) if identity not in shared]
    removed = len(table) - len(keep)
    return (table.take(keep) if removed else table), removed


def drop_leaks(splits: Splits) -> Splits:
    """Drop rows of dev that are in test, and rows of train that are in either; counted in the notes.

    Raises:
        DataError: nothing would be left of a part.
    """
    notes = list(splits.notes)
    dev, count = drop_shared_rows(splits.dev, splits.test)
    notes += [f"removed {count} rows of dev that are also in test"] if count else []
    train, in_dev = drop_shared_rows(splits.train, splits.dev)
    train, in_test = drop_shared_rows(train, splits.test)
    for count, name in ((in_dev, "dev"), (in_test, "test")):
        notes += [f"removed {count} rows of train that are also in {name}"] if count else []
    for name, part, before in (("dev", dev, splits.dev), ("train", train, splits.train)):
        if len(before) and not len(part):
            raise DataError(f"{before.source}: every row of {name} is also in a held-out part; use other files")
    return Splits(train, dev, splits.test, notes)


def text_overlap(train: Table, test: Table) -> float:
    """Return the share (0 to 1) of the distinct normalized texts in test's rows that also occur in rows of train."""
    train_texts, test_texts = (
        {normalize(text) for texts in table.row_texts() for text in texts} for table in (train, test)
    )
    return len(test_texts & train_texts) / len(test_texts) if test_texts else 0.0
