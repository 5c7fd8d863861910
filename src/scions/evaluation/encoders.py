"""Protocol of an encoder, and texts encoded to checked unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from scions.data.files import excerpt
from scions.encoder.roles import RoleEncoder, encode_role
from scions.errors import ScionsError
from scions.unit_rows import unit_rows


class Encoder(Protocol):
    """Anything that turns n texts into an `[n, dimensions]` array; a SentenceTransformer is one.

    It is called with `batch_size=`, `show_progress_bar=False`, `convert_to_numpy=True` and
    `normalize_embeddings=True`. Where it also has `encode_query` and `encode_document` (sentence-transformers >= 5),
    queries and documents go through those, so that a model's prompts are honoured.
    """

    def encode(self, sentences: list[str], **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of distinct texts: `matrix[place[text]]` is the float32 vector of `text`."""

    place: dict[str, int]
    matrix: np.ndarray

    def of(self, texts: Iterable[str]) -> np.ndarray:
        """`[n, dimensions]`, a row for each of n texts."""
        return self.matrix[[self.place[text] for text in texts]]


def encode_texts(encoder: Encoder, texts: Iterable[str], *, batch_size: int = 64, role: str | None = None) -> Vectors:
    """Encode each distinct text once. role: None, "query" or "document".

    Raises ScionsError where the encoder returns another shape than `[texts, dimensions]`, NaN or infinity.
    """
    distinct = list(dict.fromkeys(texts))
    matrix = np.asarray(
        encode_role(
            encoder,
            role,
            distinct,
            batch_size=batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        ),
        dtype=np.float32,
    )
    if matrix.ndim != 2 or len(matrix) != len(distinct):
        raise ScionsError(
            f"The encoder returned an array of shape {matrix.shape} for {len(distinct)} texts; "
            f"expected ({len(distinct)}, dimensions)."
        )
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise ScionsError(
            f"The encoder returned NaN or infinity for {len(broken)} of {len(distinct)} texts, first for text "
            f"{int(broken[0]) + 1}: {excerpt(distinct[int(broken[0])], 80)}. Its weights are damaged, or its "
            "precision overflows: try fp32."
        )
    # A user's encoder may ignore normalize_embeddings; dot products below are cosines all the same.
    return Vectors({text: i for i, text in enumerate(distinct)}, unit_rows(matrix))


class CachedEncoder(RoleEncoder):
    """An encoder that encodes each text once with another encoder, by role; its vectors must not change meanwhile.

    For a table that is scored more than once, or by several encoders that share documents. It never forgets: it takes
    ``texts * dimensions * 4`` bytes, so use it for a corpus only if that is scored more than once.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.known: dict[str | None, dict[str, np.ndarray]] = {}

    def encode_role(self, role: str | None, sentences: Sequence[str], **options: Any) -> np.ndarray:
        """Return vectors ``[sentences, dimensions]``."""
        return self.of(sentences, role, int(options.get("batch_size", 64)))

    def of(self, texts: Sequence[str], role: str | None, batch_size: int) -> np.ndarray:
        known = self.known.setdefault(role, {})
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            vectors = encode_texts(self.encoder, missing, batch_size=batch_size, role=role)
            known.update(zip(missing, vectors.of(missing), strict=True))
        return np.stack([known[text] for text in texts])


def cosines(encoder: Encoder, first: Sequence[str], second: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
    """Return the cosine of each row's two texts: `[n]` float32."""
    vectors = encode_texts(encoder, [*first, *second], batch_size=batch_size)
    return np.asarray(np.einsum("nd,nd->n", vectors.of(first), vectors.of(second)))
