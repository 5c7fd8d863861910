"""What the server needs of an encoder, and the name of the space that its vectors lie in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scions.encoder.base_info import Weights

if TYPE_CHECKING:
    import numpy as np


class RowBatchEncoder(Protocol):
    """A base that encodes every row with an adapter of its own; every method may be called by any thread."""

    @property
    def tokenizer(self) -> Any: ...

    def tokenize_rows(
        self, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Token ids of every text, special tokens included, and how many texts were cut."""

    def encode_rows(
        self, token_ids: Sequence[Sequence[int]], adapters: Sequence[Any], strengths: Sequence[float]
    ) -> np.ndarray:
        """Vectors ``[rows, dim]``, float32; ``adapters`` holds weights, or None for the base alone."""


class AdapterReader(Protocol):
    """Reads an adapter's folder for one base."""

    def __call__(self, folder: Path, name: str) -> Weights:
        """Raises AdapterError where the folder is damaged or belongs to another base."""
