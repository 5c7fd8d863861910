"""What the server needs of an encoder, and the name of the space that its vectors lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scions.errors import UsageError
from scions.store import space_fingerprint

if TYPE_CHECKING:
    import numpy as np

    from scions.encoder.domain_encoder import DomainEncoder


class Weights(Protocol):
    """One adapter's weights in memory. They are never changed once read, so that any thread may use them."""

    @property
    def version(self) -> str:
        """Twelve hex digits that name these weights."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the adapter's tensors, for `scions.store.space_fingerprint`."""

    @property
    def bytes(self) -> int:
        """Memory that they take."""

    @property
    def max_length(self) -> int | None:
        """Tokens of a text that they were trained with; None: the base's."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Texts put before an input, by name; they go before the base's."""


class Encoder(Protocol):
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


@dataclass(frozen=True)
class Stock:
    """The base that a server was started with.

    Attributes:
        id: its name, as on the Hub.
        sha256: `scions.store.base_fingerprint`.
        pooling: `scions.encoder.pooling_of`.
        dimensions: length of its vectors.
        vocabulary: number of token ids; an id lies below it.
        max_length: tokens read of a text.
        prompts: texts put before an input, by name.
        default_prompt: the one used where a request names none; None for no prompt.
    """

    id: str
    sha256: str
    pooling: str
    dimensions: int
    vocabulary: int
    max_length: int
    prompts: dict[str, str]
    default_prompt: str | None = None

    @classmethod
    def of(cls, encoder: DomainEncoder) -> Stock:
        """Read off an encoder.

        Raises:
            ScionsError: the base's weights cannot be read.
            UsageError: its pooling leaves prompts out, which rows of tokens do not tell apart.
        """
        from scions.encoder import pooling_of
        from scions.encoder.row_texts import limit_of

        prompts = {name: text or "" for name, text in (encoder.prompts or {}).items()}
        if any(prompts.values()) and any(not getattr(module, "include_prompt", True) for module in encoder):
            raise UsageError(f"base {encoder.base_name!r}: its pooling leaves prompts out, which the server cannot do")
        return cls(
            id=encoder.base_name,
            sha256=encoder.base_sha256,
            pooling=pooling_of(encoder),
            dimensions=int(encoder.get_embedding_dimension() or 0),
            vocabulary=int(encoder.transformers_model.config.vocab_size),
            max_length=limit_of(encoder) or 512,
            prompts=prompts,
            default_prompt=encoder.default_prompt_name,
        )

    def space(self, weights: Weights | None, strength: float, dimensions: int) -> str:
        """The fingerprint of the space of a row's vector; ``dimensions`` is its length after any cut."""
        # At strength 0 vectors are the base's own.
        adapter = None if weights is None or strength == 0 else weights.fingerprint
        return _space(self.sha256, adapter, strength, self.pooling, dimensions)


@lru_cache(maxsize=20_000)
def _space(base: str, adapter: str | None, strength: float, pooling: str, dimensions: int) -> str:
    return space_fingerprint(base, adapter, strength, pooling=pooling, dimensions=dimensions)


class Reader(Protocol):
    """Reads an adapter's folder for one base."""

    def __call__(self, folder: Path, name: str) -> Weights:
        """Raises AdapterError where the folder is damaged or belongs to another base."""
