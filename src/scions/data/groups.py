"""Group rows that share a text or a document, so that a split keeps them on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from scions.data.shapes import Shape, Table

LARGEST_SHARE = 0.3  # a component beyond this share of the rows leaves too little to hold out


def normalize(text: str) -> str:
    """Fold case and collapse white space: texts that differ only in these count as one."""
    return " ".join(text.casefold().split())


def components(rows: Iterable[Iterable[Hashable]]) -> list[int]:
    """Return a group number per row; rows that share a key, even through other rows, share a number.

    Union-find with path halving and union by size: nearly linear in the number of keys.
    """
    parent: list[int] = []
    size: list[int] = []
    owner: dict[Hashable, int] = {}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for index, keys in enumerate(rows):
        parent.append(index)
        size.append(1)
        for key in keys:
            a, b = root(owner.setdefault(key, index)), root(index)
            if a != b:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
    return factorize(root(i) for i in range(len(parent)))


def factorize(keys: Iterable[Hashable]) -> list[int]:
    """Return keys as numbers in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _keys(table: Table) -> Iterable[Iterable[Hashable]]:
    if table.shape is Shape.RETRIEVAL:
        for query, relevant in table.rows():
            yield [("query", normalize(query)), *(("document", name) for name in relevant)]
    else:
        for texts in table.row_texts():
            yield [normalize(text) for text in texts]


def group_rows(table: Table) -> tuple[list[int], list[str]]:
    """Return a group number per row, and notes on the grouping.

    Groups are the explicit `group`, else connected components over equal texts (RETRIEVAL: equal queries and shared
    relevant documents). Where one component would hold more than 30 % of the rows, rows are grouped by their first
    text.
    """
    if table.group is not None:
        return factorize(table.group), ["split by the column 'group'"]
    groups = components(_keys(table))
    largest = max(Counter(groups).values(), default=0)
    if largest <= LARGEST_SHARE * len(groups) or table.shape in (Shape.TEXTS, Shape.LABELLED):
        return groups, []
    shared = "documents" if table.shape is Shape.RETRIEVAL else "texts"
    note = (
        f"split by the first text of each row: through shared {shared} {100 * largest / len(groups):.0f} % "
        "of the rows hang together, too many to keep on one side"
    )
    return factorize(normalize(next(iter(texts))) for texts in table.row_texts()), [note]
