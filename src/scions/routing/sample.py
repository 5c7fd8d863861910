"""Choose which texts of a collection a routing decision reads, and keep their base vectors for encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from scions.unit_rows import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

V = TypeVar("V", bound="np.ndarray | Tensor")

# The number of texts that `COLLECTION` was calibrated for. A decision costs one pass of the bare base over them, and
# that should not grow with the collection.
SAMPLE_SIZE = 20


@dataclass(frozen=True)
class RoutingSample(Generic[V]):
    """Rows that a decision was made by, their token ids, and the bare base's ``vectors`` ``[rows, dimensions]``.

    The ids are those of the texts without any prompt, cut at the base's own length, as for domain statistics.
    """

    rows: Sequence[int]
    ids: Sequence[Sequence[int]]
    vectors: V

    def unit(self) -> np.ndarray:
        """Return the vectors at length 1, as domain statistics are made of."""
        vectors = self.vectors
        return unit_rows(vectors if isinstance(vectors, np.ndarray) else vectors.cpu().numpy())

    def reusable(self, ids: Sequence[Sequence[int]], bare: Sequence[bool]) -> list[int]:
        """Return the rows that need not be encoded again: of the ``bare`` base, with the same tokens."""
        pairs = zip(self.rows, self.ids, strict=True)
        return [row for row, sampled in pairs if bare[row] and list(ids[row]) == list(sampled)]

    def of(self, rows: Sequence[int]) -> V:
        """Return the vectors of these rows."""
        place = {row: index for index, row in enumerate(self.rows)}
        return self.vectors[[place[row] for row in rows]]  # type: ignore[return-value]


def sample_rows(texts: int) -> list[int]:
    """Return the rows to decide by: all, or `SAMPLE_SIZE` from the middles of as many equal parts."""
    if texts <= SAMPLE_SIZE:
        return list(range(texts))
    return [(2 * part + 1) * texts // (2 * SAMPLE_SIZE) for part in range(SAMPLE_SIZE)]
