"""Turn training rows into places of distinct texts, with the texts that must not count as negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scions.data import Shape, Table
from scions.data.shapes import COLUMNS
from scions.errors import UsageError

OF_TEXTS = ("simcse", "deletion")  # objectives in which a text is its own positive


@dataclass
class Examples:
    """Rows over distinct texts.

    Attributes:
        texts: the distinct texts, prompts included; all numbers below are places in this list.
        columns: ``[rows, columns]``: anchor, positive, then negatives; a single column for labelled texts.
        scores: ``[rows]`` similarity to learn, or None.
        keys: ``[rows]`` class of a labelled text, or None.
        relevant: by anchor, every text known to be relevant to it, which is never its negative.
        others: given negatives, whether they are in a column or not.
    """

    texts: list[str]
    columns: np.ndarray
    scores: np.ndarray | None = None
    keys: np.ndarray | None = None
    relevant: dict[int, set[int]] = field(default_factory=dict)
    others: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.columns)


Place = Callable[[str], int]


def to_examples(table: Table, objective: str, query_prompt: str = "", document_prompt: str = "") -> Examples:
    """Return the rows of ``table`` for ``objective`` (contrastive, cosent, simcse or deletion)."""
    places: dict[str, int] = {}

    def query(text: str) -> int:
        return places.setdefault(query_prompt + text, len(places))

    def document(text: str) -> int:
        return places.setdefault(document_prompt + text, len(places))

    if objective in OF_TEXTS:
        single = [document(text) for text in table.texts()]
        return Examples(list(places), np.array([single, single]).T)
    build = _BUILDERS.get(table.shape)
    if build is None:
        raise UsageError(f"{table.shape.value} data can only be trained with the objectives {' or '.join(OF_TEXTS)}")
    examples = build(table, query, document)
    examples.texts = list(places)
    return examples


def _pairs(table: Table, query: Place, document: Place) -> Examples:
    rows = [[query(anchor), *map(document, others)] for anchor, *others in table.rows()]
    relevant: dict[int, set[int]] = {}
    for row in rows:
        relevant.setdefault(row[0], set()).add(row[1])
    return Examples([], np.array(rows), relevant=relevant)


def _scored(table: Table, query: Place, document: Place) -> Examples:
    # Neither side of a scored pair is a query: both get the documents' prompt.
    first, second, scores = (table.columns[name] for name in COLUMNS[table.shape])
    left, right = ([document(text) for text in texts] for texts in (first, second))
    return Examples([], np.array([left, right]).T, scores=np.array(scores, dtype=np.float32))


def _labeled_rows(table: Table, query: Place, document: Place) -> Examples:
    _, keys = np.unique(np.array(table.columns["label"]), return_inverse=True)
    return Examples([], np.array([[document(text)] for text in table.columns["text"]]), keys=keys)


def _candidates(table: Table, query: Place, document: Place) -> Examples:
    rows: list[list[int]] = []
    relevant: dict[int, set[int]] = {}
    others: set[int] = set()
    for anchor, positives, negatives in table.rows():
        place = query(anchor)
        wrong = [document(text) for text in negatives]
        right = [document(text) for text in positives]
        relevant.setdefault(place, set()).update(right)
        others.update(wrong)
        # Every positive once, each time with another negative.
        rows += [[place, good, wrong[i % len(wrong)] if wrong else -1] for i, good in enumerate(right)]
    places = np.array(rows)
    # Without a negative in every row there is no column of negatives (mining may add one later).
    used = places if (places >= 0).all() else places[:, :2]
    return Examples([], used, relevant=relevant, others=np.array(sorted(others), dtype=np.int64))


def _retrieval(table: Table, query: Place, document: Place) -> Examples:
    corpus = table.corpus or {}
    rows: list[list[int]] = []
    relevant: dict[int, set[int]] = {}
    for anchor, judged in table.rows():
        place = query(anchor)
        right = [document(corpus[name]) for name, grade in judged.items() if grade > 0]
        relevant.setdefault(place, set()).update(right)
        rows += [[place, good] for good in right]
    return Examples([], np.array(rows), relevant=relevant)


_BUILDERS = {
    Shape.PAIRS: _pairs,
    Shape.TRIPLETS: _pairs,
    Shape.SCORED: _scored,
    Shape.BINARY: _scored,
    Shape.LABELLED: _labeled_rows,
    Shape.CANDIDATES: _candidates,
    Shape.RETRIEVAL: _retrieval,
}
