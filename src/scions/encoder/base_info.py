"""The space an encoder's vectors lie in, as a record that goes with every file of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scions.errors import UsageError
from scions.store import (
    DomainStatistics,
    Manifest,
    adapter_fingerprint,
    base_fingerprint,
    base_id,
    is_whole_model,
    space_fingerprint,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class VectorSpace:
    """``base`` and ``adapter`` are for people, ``fingerprint`` decides: vectors compare only where it is the same.

    ``query_side``: the adapter is for queries alone, and the space is the base's. ``adapter_version``: twelve hex
    digits that name the adapter's weights.
    """

    fingerprint: str
    base: str
    adapter: str | None
    pooling: str
    dimensions: int
    query_side: bool = False
    adapter_version: str | None = None


def space_of(encoder: SentenceTransformer, adapter: Path | None = None, *, base: str | None = None) -> VectorSpace:
    """The space of ``encoder``; ``adapter`` is the folder of the adapter active in it, None for a bare model.

    Args:
        encoder: what `load_encoder` returned.
        adapter: its adapter's folder, or that of a model trained whole (method ``full``).
        base: what to call the base; None takes the place it was loaded from.

    Raises:
        ScionsError: the weights of base or adapter cannot be read.
    """
    pooling, dimensions = pooling_of(encoder), int(encoder.get_embedding_dimension() or 0)
    name, query_side = base or _origin(encoder), False
    second: str | None = None
    if adapter is None:
        first = base_fingerprint(encoder)
    else:
        manifest = Manifest.read(adapter)
        query_side = manifest.query_side
        if is_whole_model(adapter):
            first, second, name = manifest.base.weights_sha256, base_fingerprint(adapter), manifest.base.id
        else:
            first, second = base_fingerprint(encoder), adapter_fingerprint(adapter)
    # A query-side adapter was trained to meet the base's own vectors of documents: they compare by construction.
    fingerprint = space_fingerprint(first, None if query_side else second, pooling=pooling, dimensions=dimensions)
    called = None if adapter is None else adapter.name
    version = None if second is None else second[:12]
    return VectorSpace(fingerprint, base_id(name), called, pooling, dimensions, query_side, version)


def pooling_of(encoder: SentenceTransformer) -> str:
    """How token vectors become one: the pooling's mode, then later modules, as ``mean`` or ``cls+dense``.

    Normalisation does not count: the cosine is the same without it.
    """
    parts = []
    for module in list(encoder)[1:]:
        mode = getattr(module, "pooling_mode", None)
        if mode is not None:
            parts.append(mode if isinstance(mode, str) else "+".join(mode))
        elif type(module).__name__ not in ("Normalize", "Dropout"):
            parts.append(type(module).__name__.lower())
    return "+".join(parts) or type(encoder[0]).__name__.lower()


def _origin(encoder: SentenceTransformer) -> str:
    network = getattr(encoder[0], "auto_model", None)
    return str(getattr(network, "name_or_path", "") or "unknown/in-memory")


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


@dataclass(frozen=True)
class BaseInfo:
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
    def of(cls, encoder: Any) -> BaseInfo:
        """Read off an encoder.

        Raises:
            ScionsError: the base's weights cannot be read.
            UsageError: its pooling leaves prompts out, which rows of tokens do not tell apart.
        """
        from scions.encoder import pooling_of
        from scions.encoder.tokenization import limit_of
        from scions.engine.layers import max_positions

        prompts = {name: text or "" for name, text in (encoder.prompts or {}).items()}
        if any(prompts.values()) and any(not getattr(module, "include_prompt", True) for module in encoder):
            raise UsageError(f"base {encoder.base_name!r}: its pooling leaves prompts out, which the server cannot do")
        network = encoder.transformers_model
        positions = max_positions(network)
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
