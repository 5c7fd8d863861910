"""Rows that stand twice: within a part they are dropped, between parts the part that trains gives them up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scions.data.groups import normalize
from scions.data.shapes import COLUMNS, Shape, Splits, Table
from scions.errors import DataError

_BY_QUERY = (Shape.RETRIEVAL, Shape.CANDIDATES)


def row_content(table: Table) -> Iterator[str]:
    """Each row as canonical JSON: equal for equal rows, whatever file they came from."""
    for values in zip(*(table.columns[name] for name in COLUMNS[table.shape]), strict=True):
        yield json.dumps(values, ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def without_duplicates(table: Table) -> Table:
    """The table with exact duplicates of earlier rows removed, counted in its notes."""
    seen: set[str] = set()
    keep: list[int] = []
    for index, content in enumerate(row_content(table)):
        if content not in seen:
            seen.add(content)
            keep.append(index)
    if len(keep) == len(table):
        return table
    smaller = table.take(keep)
    count = len(table) - len(keep)
    smaller.notes.append(f"removed {count} exact duplicate row{'' if count == 1 else 's'}")
    return smaller


def _identities(table: Table, by_query: bool) -> list[Any]:
    """What makes a row the same row elsewhere: its text or its unordered pair; never score or label."""
    length = 1 if by_query or table.shape in _BY_QUERY else 2
    if table.shape in _BY_QUERY:
        return [(normalize(query),) for query in table.columns["query"]]
    return [tuple(sorted(normalize(text) for text in texts[:length])) for texts in table.row_texts()]


def without(table: Table, held: Table) -> tuple[Table, int]:
    """The rows of `table` that do not stand in `held`, and how many did.
    Where either side is RETRIEVAL or CANDIDATES a row counts as the same when its first text is the same
    query.
    """
    by_query = table.shape in _BY_QUERY or held.shape in _BY_QUERY
    standing = set(_identities(held, by_query))
    keep = [i for i, identity in enumerate(_identities(table, by_query)) if identity not in standing]
    removed = len(table) - len(keep)
    return (table.take(keep) if removed else table), removed


def without_leaks(splits: Splits) -> Splits:
    """Dev without rows of test, train without rows of either; counted in the notes.

    Raises DataError where nothing would be left of a part.
    """
    notes = list(splits.notes)
    dev, count = without(splits.dev, splits.test)
    notes += [f"removed {count} rows of dev that also stand in test"] if count else []
    train, in_dev = without(splits.train, splits.dev)
    train, in_test = without(train, splits.test)
    for count, name in ((in_dev, "dev"), (in_test, "test")):
        notes += [f"removed {count} rows of train that also stand in {name}"] if count else []
    for name, part, before in (("dev", dev, splits.dev), ("train", train, splits.train)):
        if len(before) and not len(part):
            raise DataError(f"{before.source}: every row of {name} also stands in the held-out parts; use other files")
    return Splits(train, dev, splits.test, notes)


def overlap(train: Table, test: Table) -> float:
    """Share (0..1) of the distinct normalised texts of test's rows that also occur in rows of train."""
    known = {normalize(text) for texts in train.row_texts() for text in texts}
    tested = {normalize(text) for texts in test.row_texts() for text in texts}
    return len(tested & known) / len(tested) if tested else 0.0
