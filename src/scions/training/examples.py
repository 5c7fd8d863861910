"""Turn training rows into places of distinct texts, with the texts that must not count as negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scions.data import Shape, Table
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


class _Texts:
    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def to_examples(table: Table, objective: str, query_prompt: str = "", document_prompt: str = "") -> Examples:
    """Return the rows of ``table`` for ``objective`` (contrastive, cosent, simcse or deletion)."""
    texts = _Texts()
    if objective in OF_TEXTS:
        single = [texts(document_prompt + text) for text in table.texts()]
        return Examples(list(texts.places), np.array([single, single]).T)
    builder = _BUILDERS.get(table.shape)
    if builder is None:
        raise UsageError(f"{table.shape.value} data can only be trained with the objectives {' or '.join(OF_TEXTS)}")
    return builder(table.columns, table.corpus or {}, texts, lambda t: query_prompt + t, lambda t: document_prompt + t)


Columns = dict[str, list]
Prompt = Callable[[str], str]


def _pairs(columns: Columns, corpus: dict[str, str], texts: _Texts, query: Prompt, document: Prompt) -> Examples:
    rows = [
        [texts(query(anchor)), *(texts(document(other)) for other in others)]
        for anchor, *others in zip(*(columns[name] for name in columns if name in _PAIR_COLUMNS), strict=True)
    ]
    relevant: dict[int, set[int]] = {}
    for row in rows:
        relevant.setdefault(row[0], set()).add(row[1])
    return Examples(list(texts.places), np.array(rows), relevant=relevant)


_PAIR_COLUMNS = ("anchor", "positive", "negative")


def _scored(columns: Columns, corpus: dict[str, str], texts: _Texts, query: Prompt, document: Prompt) -> Examples:
    # Neither side of a scored pair is a query: both get the documents' prompt.
    left, right = ([texts(document(text)) for text in columns[name]] for name in ("sentence1", "sentence2"))
    scores = columns["score"] if "score" in columns else columns["label"]
    return Examples(list(texts.places), np.array([left, right]).T, scores=np.array(scores, dtype=np.float32))


def _labeled_rows(columns: Columns, corpus: dict[str, str], texts: _Texts, query: Prompt, document: Prompt) -> Examples:
    places = np.array([[texts(document(text))] for text in columns["text"]])
    _, keys = np.unique(np.array(columns["label"]), return_inverse=True)
    return Examples(list(texts.places), places, keys=keys)


def _candidates(columns: Columns, corpus: dict[str, str], texts: _Texts, query: Prompt, document: Prompt) -> Examples:
    rows: list[list[int]] = []
    relevant: dict[int, set[int]] = {}
    others: set[int] = set()
    for anchor, positives, negatives in zip(columns["query"], columns["positive"], columns["negative"], strict=True):
        place = texts(query(anchor))
        wrong = [texts(document(text)) for text in negatives]
        right = [texts(document(text)) for text in positives]
        relevant.setdefault(place, set()).update(right)
        others.update(wrong)
        # Every positive once, each time with another negative.
        rows += [[place, good, wrong[i % len(wrong)] if wrong else -1] for i, good in enumerate(right)]
    places = np.array(rows)
    # Without a negative in every row there is no column of negatives (mining may add one later).
    columns_used = places if (places >= 0).all() else places[:, :2]
    return Examples(
        list(texts.places), columns_used, relevant=relevant, others=np.array(sorted(others), dtype=np.int64)
    )


def _retrieval(columns: Columns, corpus: dict[str, str], texts: _Texts, query: Prompt, document: Prompt) -> Examples:
    rows: list[list[int]] = []
    relevant: dict[int, set[int]] = {}
    for anchor, judged in zip(columns["query"], columns["relevant"], strict=True):
        place = texts(query(anchor))
        right = [texts(document(corpus[name])) for name, grade in judged.items() if grade > 0]
        relevant.setdefault(place, set()).update(right)
        rows += [[place, good] for good in right]
    return Examples(list(texts.places), np.array(rows), relevant=relevant)


_BUILDERS = {
    Shape.PAIRS: _pairs,
    Shape.TRIPLETS: _pairs,
    Shape.SCORED: _scored,
    Shape.BINARY: _scored,
    Shape.LABELLED: _labeled_rows,
    Shape.CANDIDATES: _candidates,
    Shape.RETRIEVAL: _retrieval,
}
