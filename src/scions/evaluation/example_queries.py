"""Example queries: the top hit of base and adapter, to be read by a person."""

from __future__ import annotations

from dataclasses import dataclass

from scions.data import Shape, Table
from scions.data.shapes import spread_rows
from scions.evaluation import CachedEncoder


@dataclass(frozen=True)
class ExampleQuery:
    """One query with the top document of base and adapter, and a relevant document."""

    query: str
    hit_before: str
    hit_after: str
    right: str
    before_right: bool
    after_right: bool


def example_queries(test: Table, before: CachedEncoder, after: CachedEncoder, count: int = 5) -> list[ExampleQuery]:
    """Return ``count`` queries spread evenly over a retrieval table, whatever their scores; none for other shapes."""
    if test.shape is not Shape.RETRIEVAL or not test.corpus:
        return []
    rows = spread_rows(len(test), count)
    queries = [test.columns["query"][row] for row in rows]
    names, texts = list(test.corpus), list(test.corpus.values())
    hits = []
    for encoder in (before, after):
        similarity = encoder.encode_query(queries) @ encoder.encode_document(texts).T
        hits.append([names[i] for i in similarity.argmax(axis=1)])
    shown = []
    for row, query, first, second in zip(rows, queries, *hits, strict=True):
        relevant = {name for name, grade in test.columns["relevant"][row].items() if grade > 0}
        right = next((test.corpus[name] for name in relevant if name in test.corpus), "")
        shown.append(
            ExampleQuery(query, test.corpus[first], test.corpus[second], right, first in relevant, second in relevant)
        )
    return shown
