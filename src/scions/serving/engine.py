"""What the server needs of an encoder, and the name of the space that its vectors lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scions.errors import UsageError
from scions.store import DomainStatistics, space_fingerprint

if TYPE_CHECKING:
    import numpy as np

    from scions.encoder.domain_encoder import DomainEncoder


_USUAL_LENGTH = 512  # where nothing at all says how much a base reads


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

    @property
    def query_side(self) -> bool:
        """Whether only queries pass through it; documents are the base's, and so is the space."""

    @property
    def domain(self) -> DomainStatistics | None:
        """Of its training texts, by which it can be chosen; None: unknown."""


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
        positions: tokens that the network has places for at all, whatever anybody asks; None where that is unbounded.
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
    positions: int | None = None

    @classmethod
    def of(cls, encoder: DomainEncoder) -> Stock:
        """Read off an encoder.

        Raises:
            ScionsError: the base's weights cannot be read.
            UsageError: its pooling leaves prompts out, which rows of tokens do not tell apart.
        """
        from scions.encoder import pooling_of
        from scions.encoder.row_texts import limit_of
        from scions.encoder.stack import capacity

        prompts = {name: text or "" for name, text in (encoder.prompts or {}).items()}
        if any(prompts.values()) and any(not getattr(module, "include_prompt", True) for module in encoder):
            raise UsageError(f"base {encoder.base_name!r}: its pooling leaves prompts out, which the server cannot do")
        network = encoder.transformers_model
        positions = capacity(network)
        limit = limit_of(encoder) or _stated(network.config)
        return cls(
            id=encoder.base_name,
            sha256=encoder.base_sha256,
            pooling=pooling_of(encoder),
            dimensions=int(encoder.get_embedding_dimension() or 0),
            vocabulary=int(network.config.vocab_size),
            max_length=limit,
            prompts=prompts,
            default_prompt=encoder.default_prompt_name,
            positions=positions,
        )

    def limit(self, weights: Weights | None) -> int:
        """Tokens read of a text with an adapter, or with none."""
        wanted = weights.max_length if weights is not None and weights.max_length else self.max_length
        return wanted if self.positions is None else min(wanted, self.positions)

    def space(self, weights: Weights | None, strength: float, dimensions: int) -> str:
        """The fingerprint of the space of a row's vector; ``dimensions`` is its length after any cut."""
        # At strength 0 vectors are the base's own, and those of a query-side adapter are made to compare with them.
        bare = weights is None or strength == 0 or weights.query_side
        adapter = None if weights is None or bare else weights.fingerprint
        return _space(self.sha256, adapter, strength, self.pooling, dimensions)


def _stated(config: Any) -> int:
    stated = getattr(config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else _USUAL_LENGTH


@lru_cache(maxsize=20_000)
def _space(base: str, adapter: str | None, strength: float, pooling: str, dimensions: int) -> str:
    return space_fingerprint(base, adapter, strength, pooling=pooling, dimensions=dimensions)


class Reader(Protocol):
    """Reads an adapter's folder for one base."""

    def __call__(self, folder: Path, name: str) -> Weights:
        """Raises AdapterError where the folder is damaged or belongs to another base."""
