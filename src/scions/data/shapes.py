"""Shapes of training data, and the table that holds rows of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from scions.errors import DataError, UsageError


class Shape(str, Enum):
    """The kind of rows in a table; the value is the name in `shape=...`."""

    TEXTS = "texts"
    PAIRS = "pairs"
    TRIPLETS = "triplets"
    SCORED = "scored"
    BINARY = "binary"
    LABELLED = "labelled"
    CANDIDATES = "candidates"
    RETRIEVAL = "retrieval"

    @classmethod
    def of(cls, name: Shape | str) -> Shape:
        """Return the shape of that name. Raises UsageError, listing the names, where there is none."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(shape.value for shape in cls)
            raise UsageError(f"unknown shape {str(name)!r}; the shapes are: {known}") from None


COLUMNS: dict[Shape, tuple[str, ...]] = {
    Shape.TEXTS: ("text",),
    Shape.PAIRS: ("anchor", "positive"),
    Shape.TRIPLETS: ("anchor", "positive", "negative"),
    Shape.SCORED: ("sentence1", "sentence2", "score"),
    Shape.BINARY: ("sentence1", "sentence2", "label"),
    Shape.LABELLED: ("text", "label"),
    Shape.CANDIDATES: ("query", "positive", "negative"),
    Shape.RETRIEVAL: ("query", "relevant"),
}
"""The canonical columns of each shape; the first is always the row's first text."""


@dataclass
class Table:
    """Rows of one shape, column by column.

    `columns` holds exactly the names of `COLUMNS[shape]`, lists of one length: texts are `str`; `score` is
    `float`; `label` is `int` 0/1 (BINARY) or `str` (LABELLED); `positive` and `negative` of CANDIDATES are
    `list[str]`; `relevant` is `dict[document id, grade]` into `corpus` (id -> text, RETRIEVAL only). Rows of
    one `group` stay on one side of a split. `ids` are the rows' own, of RETRIEVAL the queries': a document of the same
    id is the query itself. `notes` say what was dropped or noticed while reading.

    Raises:
        DataError: names or lengths do not fit the shape.
    """

    shape: Shape
    columns: dict[str, list[Any]]
    source: str
    corpus: dict[str, str] | None = None
    group: list[str] | None = None
    ids: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        expected = COLUMNS[self.shape]
        if set(self.columns) != set(expected):
            names = ", ".join(self.columns) or "none"
            raise DataError(f"{self.source}: shape {self.shape.value} has columns {', '.join(expected)}; found {names}")
        lengths = {name: len(values) for name, values in self.columns.items()}
        for name, values in (("group", self.group), ("ids", self.ids)):
            if values is not None:
                lengths[name] = len(values)
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.source}: columns of different lengths: {lengths}")
        if (self.corpus is not None) != (self.shape is Shape.RETRIEVAL):
            raise DataError(f"{self.source}: a corpus belongs to shape retrieval, and only there")

    def __len__(self) -> int:
        return len(self.columns[COLUMNS[self.shape][0]])

    def take(self, indices: Sequence[int]) -> Table:
        """Return a table of the rows at `indices`, in that order; corpus (shared, not copied) and notes are kept."""
        return Table(
            shape=self.shape,
            columns={name: [values[i] for i in indices] for name, values in self.columns.items()},
            source=self.source,
            corpus=self.corpus,
            group=None if self.group is None else [self.group[i] for i in indices],
            ids=None if self.ids is None else [self.ids[i] for i in indices],
            notes=list(self.notes),
        )

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Return the values of each row, in the order of `COLUMNS`."""
        return zip(*(self.columns[name] for name in COLUMNS[self.shape]), strict=True)

    def row_texts(self) -> Iterator[list[str]]:
        """Yield the texts of each row, first column first; RETRIEVAL: the query, then its relevant documents."""
        if self.shape is Shape.RETRIEVAL:
            corpus = self.corpus or {}
            for query, relevant in self.rows():
                yield [query, *(corpus[i] for i in relevant if i in corpus)]
        elif self.shape is Shape.CANDIDATES:
            for query, positive, negative in self.rows():
                yield [query, *positive, *negative]
        else:
            count = sum(name not in ("score", "label") for name in COLUMNS[self.shape])
            for values in self.rows():
                yield list(values[:count])

    def texts(self) -> list[str]:
        """Return distinct texts in order of first appearance (RETRIEVAL: all queries, then the whole corpus)."""
        if self.shape is Shape.RETRIEVAL:
            return list(dict.fromkeys([*self.columns["query"], *(self.corpus or {}).values()]))
        return list(dict.fromkeys(text for texts in self.row_texts() for text in texts))


def spread_rows(rows: int, limit: int) -> list[int]:
    """Return at most ``limit`` row numbers, evenly spread from the first to the last of ``rows``."""
    count = min(rows, limit)
    step = (rows - 1) / max(1, count - 1)
    return sorted({round(place * step) for place in range(count)})


PART_NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""The file stems that name each part."""


def part_name(stem: str) -> str:
    """Return "dev" for "valid" and its like; other names stay."""
    return next((part for part, stems in PART_NAMES.items() if stem.lower() in stems), stem)


@dataclass
class Splits:
    """Three disjoint tables: train changes weights, dev chooses settings, test is scored once."""

    train: Table
    dev: Table
    test: Table
    notes: list[str] = field(default_factory=list)
