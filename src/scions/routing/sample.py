"""Which texts of a collection a routing decision reads, and their base vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scions.unit_rows import unit_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RoutingSample:
    """What a decision looked at: rows, their token ids, and the bare base's ``vectors`` ``[rows, dimensions]``."""

    rows: Sequence[int]
    ids: Sequence[Sequence[int]]
    vectors: Tensor

    def unit(self) -> np.ndarray:
        """The vectors with length 1, as statistics of domains are made of."""
        return unit_rows(self.vectors.cpu().numpy())

    def same(self, ids: Sequence[Sequence[int]], adapters: Sequence[Any], prompt_lengths: Sequence[int]) -> list[int]:
        """Which rows these vectors are the answer for: the same tokens, no adapter, no prompt to leave out."""
        pairs = zip(self.rows, self.ids, strict=True)
        return [
            row
            for row, own in pairs
            if adapters[row] is None and not prompt_lengths[row] and list(ids[row]) == list(own)
        ]

    def of(self, rows: Sequence[int]) -> Tensor:
        """Their vectors."""
        place = {row: at for at, row in enumerate(self.rows)}
        return self.vectors[[place[row] for row in rows]]


# So many texts of a collection a decision looks at: what `COLLECTION` was settled for. The pass over the bare base is
# what a decision costs, and it should not grow with the collection.
SAMPLE_SIZE = 20


def sample_rows(texts: int) -> list[int]:
    """Which of so many texts a decision looks at: all, or `SAMPLE_SIZE` from the middles of as many equal parts."""
    if texts <= SAMPLE_SIZE:
        return list(range(texts))
    return [(2 * part + 1) * texts // (2 * SAMPLE_SIZE) for part in range(SAMPLE_SIZE)]
