"""Score retrieval: pairs, triplets, a corpus, halves of plain texts, and candidate lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from scions.data.groups import group_rows
from scions.data.shapes import Shape, Table
from scions.encoder.base_info import rows_by_key
from scions.errors import DataError
from scions.evaluation import metrics
from scions.evaluation.encoders import Encoder, encode_texts
from scions.evaluation.ranking import DOCUMENTS_AT_ONCE, RESOLUTION, nearest
from scions.evaluation.scores import Evaluation, MeanOfUnits, Recompute, concluded
from scions.evaluation.split_halves import halves

DEPTH = 100


@dataclass(frozen=True)
class Search:
    """Queries, the documents they search, grades (> 0) of relevant document positions by query, and queries' groups."""

    queries: list[str]
    documents: list[str]
    relevant: list[dict[int, float]]
    groups: list[int]
    own: list[int | None] = field(default_factory=list)


def retrieval(encoder: Encoder, table: Table, batch_size: int = 64) -> Evaluation:
    """Return `ndcg@10` (grades as gain), `mrr@10`, `map@100`, `recall@10`, `recall@100`; a unit is a query.

    RETRIEVAL searches its corpus. PAIRS and TRIPLETS search the distinct positives (and negatives) of the table, and
    all positives of equal anchors are relevant. A query without a relevant document is left out. A
    document that equals the query and is not relevant to it is left out of its ranking: any encoder puts it first.
    """
    search = _of_corpus(table) if table.shape is Shape.RETRIEVAL else _of_pairs(table)
    return _searched(encoder, search, table.shape, batch_size)


def texts(encoder: Encoder, table: Table, batch_size: int = 64) -> Evaluation:
    """Return `halves_ndcg@10` and others: the first half of each text searches for its second half.

    A proxy for tables without labels: it measures whether texts of one topic are similar, not success at a task.
    Raises DataError where fewer than 20 texts have the 8 words that splitting needs.
    """
    first, second = halves(table.columns["text"], table.source)
    pairs = Table(Shape.PAIRS, {"anchor": first, "positive": second}, table.source)
    return _searched(encoder, _of_pairs(pairs), Shape.TEXTS, batch_size, prefix="halves_")


def candidates(encoder: Encoder, table: Table, batch_size: int = 64) -> Evaluation:
    """Return `map`, `mrr` and `ndcg@10` over each query's candidates.

    A query without a positive is left out. Of equal cosines the negative ranks first, so that an encoder that gives
    all texts the same vector gains nothing.
    """
    groups = group_rows(table)[0]
    rows = [
        (q, list(good), list(bad), group) for (q, good, bad), group in zip(table.rows(), groups, strict=True) if good
    ]
    if not rows:
        raise DataError(f"{table.source}: no query has a positive candidate.")
    asked = encode_texts(encoder, [row[0] for row in rows], batch_size=batch_size, role="query")
    offered = encode_texts(
        encoder, [text for row in rows for text in (*row[1], *row[2])], batch_size=batch_size, role="document"
    )
    width = max(len(good) + len(bad) for _, good, bad, _ in rows)
    ranked, ideal = np.zeros((len(rows), width)), np.zeros((len(rows), width))
    for i, (query, good, bad, _) in enumerate(rows):
        similarity = offered.of([*bad, *good]) @ asked.of([query])[0]
        order = np.argsort(-np.round(similarity / RESOLUTION), kind="stable")
        ranked[i, : len(order)] = order >= len(bad)
        ideal[i, : len(good)] = 1
    units: dict[str, Recompute] = {
        "map": MeanOfUnits(metrics.average_precision_at_k(ranked, ideal.sum(axis=1), width)),
        "mrr": MeanOfUnits(metrics.reciprocal_rank_at_k(ranked, width)),
        "ndcg@10": MeanOfUnits(metrics.ndcg_at_k(ranked, ideal, 10)),
    }
    return concluded(Shape.CANDIDATES, "map", units, [row[0] for row in rows], groups=[row[3] for row in rows])


def _searched(encoder: Encoder, search: Search, shape: Shape, batch_size: int, prefix: str = "") -> Evaluation:
    vectors = encode_texts(encoder, search.queries, batch_size=batch_size, role="query").of(search.queries)
    blocks = _encoded_blocks(encoder, search.documents, batch_size)
    positions = nearest(vectors, blocks, len(search.documents), DEPTH, _excluded(search), search.relevant)
    ranked = np.array(
        [[grades.get(p, 0.0) for p in row] for grades, row in zip(search.relevant, positions.tolist(), strict=True)]
    )
    count = np.array([len(grades) for grades in search.relevant])
    ideal = np.zeros((len(count), min(int(count.max()), DEPTH)))
    for i, grades in enumerate(search.relevant):
        best = sorted(grades.values(), reverse=True)[:DEPTH]
        ideal[i, : len(best)] = best
    units: dict[str, Recompute] = {
        f"{prefix}ndcg@10": MeanOfUnits(metrics.ndcg_at_k(ranked, ideal, 10)),
        f"{prefix}mrr@10": MeanOfUnits(metrics.reciprocal_rank_at_k(ranked, 10)),
        f"{prefix}map@100": MeanOfUnits(metrics.average_precision_at_k(ranked, count, 100)),
        f"{prefix}recall@10": MeanOfUnits(metrics.recall_at_k(ranked, count, 10)),
        f"{prefix}recall@100": MeanOfUnits(metrics.recall_at_k(ranked, count, 100)),
    }
    return concluded(
        shape, f"{prefix}ndcg@10", units, search.queries, groups=search.groups, documents=len(search.documents)
    )


def _encoded_blocks(encoder: Encoder, documents: list[str], batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    # A block's vectors are dropped before the next is encoded, so that a large corpus is never in memory as a whole.
    for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
        block = documents[start : start + DOCUMENTS_AT_ONCE]
        yield start, encode_texts(encoder, block, batch_size=batch_size, role="document").of(block)


def _excluded(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (query, document position) of documents that are the query itself, by text or by id."""
    asked = rows_by_key(search.queries)
    pairs = [
        (number, position)
        for position, document in enumerate(search.documents)
        for number in asked.get(document, ())
        if position not in search.relevant[number]
    ]
    own = [(n, p) for n, p in enumerate(search.own) if p is not None and p not in search.relevant[n]]
    both = np.array(sorted({*pairs, *own}), dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _of_corpus(table: Table) -> Search:
    if not table.corpus:
        raise DataError(f"{table.source}: a retrieval table needs a corpus of documents, and this one has none.")
    place = {key: position for position, key in enumerate(table.corpus)}
    queries: list[str] = []
    relevant: list[dict[int, float]] = []
    groups: list[int] = []
    own: list[int | None] = []
    every = group_rows(table)[0]
    for row, (query, judged) in enumerate(table.rows()):
        missing = next((key for key in judged if key not in place), None)
        if missing is not None:
            raise DataError(
                f"{table.source}, row {row + 1}: relevant document {missing!r} is not among the "
                f"{len(place)} documents of the corpus."
            )
        grades = {place[key]: float(grade) for key, grade in judged.items() if grade > 0}
        if grades:
            queries.append(query)
            relevant.append(grades)
            groups.append(every[row])
            own.append(place.get(table.ids[row]) if table.ids else None)
    if not queries:
        raise DataError(f"{table.source}: no query has a relevant document (a grade above 0).")
    return Search(queries, list(table.corpus.values()), relevant, groups, own)


def _of_pairs(table: Table) -> Search:
    negatives = table.columns.get("negative", [])
    documents = list(dict.fromkeys([*table.columns["positive"], *negatives]))
    place = {text: position for position, text in enumerate(documents)}
    judged: dict[str, dict[int, float]] = {}
    group: dict[str, int] = {}
    rows = zip(table.columns["anchor"], table.columns["positive"], group_rows(table)[0], strict=True)
    for anchor, positive, number in rows:
        judged.setdefault(anchor, {})[place[positive]] = 1.0
        group.setdefault(anchor, number)
    return Search(list(judged), documents, list(judged.values()), list(group.values()))
