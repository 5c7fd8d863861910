"""What a person needs to decide between queries alone and embedding every document anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentence_transformers import SentenceTransformer

from scions.evaluation import Evaluation, Interval, paired_difference
from scions.vectors.reindex import rows_per_second


@dataclass(frozen=True)
class Reindexing:
    """Gains over the base x100, of the metric that decides, and what the larger of them would cost here.

    Attributes:
        query_side: gain with the documents' vectors as they are.
        two_sided: gain of an adapter for both sides, every document embedded anew; None where none was trained.
        documents: how many documents there are, as far as is known.
        rows_per_second: documents that this machine embeds a second with an adapter, measured.
    """

    query_side: Interval
    two_sided: Interval | None
    documents: int
    rows_per_second: float

    @property
    def seconds(self) -> float:
        """What embedding all documents anew would take here."""
        return self.documents / self.rows_per_second if self.rows_per_second else 0.0

    @property
    def sentences(self) -> list[str]:
        """The gain and cost of either way."""
        cost = (
            f"{self.documents:,} documents, about {_minutes(self.seconds)} here ({self.rows_per_second:,.0f} a second)"
        )
        kept = f"Queries alone: {_signed(self.query_side)}, with 0 documents embedded anew."
        if self.two_sided is None:
            return [kept, f"Embedding all anew would take {cost}; --compare-two-sided trains what it would gain."]
        return [kept, f"Both sides: {_signed(self.two_sided)}, with every document embedded anew: {cost}."]

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
    """Measure what embedding every document anew would cost, and set the gains beside it.

    Args:
        adapted: the base with an adapter, as documents would be embedded with one.
        texts: documents to measure the speed with.
        documents: how many there are.
        base: of the bare base on the test rows.
        gain: of the query-side adapter over it.
        both: of a two-sided adapter on the same rows, where one was trained.
    """
    two_sided = None if both is None else paired_difference(base, both)
    return Reindexing(gain, two_sided, documents, rows_per_second(adapted, list(texts)))


def _signed(value: Interval) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
