"""Gain and cost of embedding every document anew, beside training the queries alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentence_transformers import SentenceTransformer

from scions.evaluation import Evaluation, Interval, paired_difference
from scions.vectors.reindex import rows_per_second


@dataclass(frozen=True)
class Reindexing:
    """Gains over the base, x100 by the primary metric, and the cost of the two-sided one on this machine.

    Attributes:
        query_side: gain with the documents' vectors as they are.
        two_sided: gain of an adapter for both sides, every document embedded anew; None where none was trained.
        documents: number of documents, as far as is known.
        rows_per_second: documents embedded per second with an adapter, measured on this machine.
    """

    query_side: Interval
    two_sided: Interval | None
    documents: int
    rows_per_second: float

    @property
    def seconds(self) -> float:
        """Time that embedding all documents anew would take on this machine."""
        return self.documents / self.rows_per_second if self.rows_per_second else 0.0

    @property
    def sentences(self) -> list[str]:
        """Gain and cost of both ways, a sentence each."""
        time = f"{self.seconds / 60:.1f} minutes" if self.seconds >= 60 else f"{self.seconds:.0f} seconds"
        cost = f"{self.documents:,} documents, about {time} here ({self.rows_per_second:,.0f} a second)"
        queries = f"Queries alone: {self.query_side.signed}, with 0 documents embedded anew."
        if self.two_sided is None:
            return [
                queries,
                f"Embedding all anew would take {cost}; `compare_two_sided=True` trains what it would gain.",
            ]
        return [queries, f"Both sides: {self.two_sided.signed}, with every document embedded anew: {cost}."]

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "seconds": self.seconds}


def reindexing_of(
    adapted: SentenceTransformer,
    texts: Sequence[str],
    documents: int,
    base: Evaluation,
    gain: Interval,
    both: Evaluation | None,
) -> Reindexing:
    """Measure the cost of embedding every document anew.

    Args:
        adapted: the base with an adapter for documents.
        texts: documents to measure the speed on.
        documents: number of documents.
        base: of the bare base on the test rows.
        gain: of the query-side adapter over it.
        both: of a two-sided adapter on the same rows, where one was trained.
    """
    two_sided = None if both is None else paired_difference(base, both)
    return Reindexing(gain, two_sided, documents, rows_per_second(adapted, list(texts)))
