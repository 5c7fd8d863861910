"""Pooling and text length of a base model, and the space, prompt and length of a row; shared with the server."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

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
from scions.store.base import max_positions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The names under which bases have a prompt for documents.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")

_DEFAULT_LENGTH = 512  # where neither model, tokenizer nor config states a length
_NO_LIMIT = 10**9  # a tokenizer's `model_max_length` beyond this means that it knows none


class Weights(Protocol):
    """One adapter's weights in memory. They never change once read, so any thread may use them."""

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
        """Statistics of its training texts, for routing; None: unknown."""


class TextModel(Protocol):
    """The attributes of a SentenceTransformer that say how long a text it reads."""

    max_seq_length: int | None

    def __getitem__(self, index: int) -> Any: ...


W = TypeVar("W", bound=Weights)
K = TypeVar("K", bound=Hashable)


@lru_cache(maxsize=20_000)
def row_space(
    base_sha256: str,
    adapter_sha256: str | None,
    strength: float = 1.0,
    *,
    query_side: bool = False,
    pooling: str,
    dimensions: int,
) -> str:
    """Return the fingerprint of the space that a row's vector lies in.

    At strength 0 vectors are the base's own, and a query-side adapter is trained to meet the base's vectors of
    documents: both lie in the base's space.

    Args:
        base_sha256: `scions.store.base_fingerprint`.
        adapter_sha256: `scions.store.adapter_fingerprint`; None for the bare base.
        strength: factor on the adapter's contribution.
        query_side: whether the adapter is for queries only.
        pooling: `pooling_of` the base.
        dimensions: length of the vector, after any truncation.

    Raises:
        UsageError: the strength is not finite, or ``dimensions`` is not positive.
    """
    adapter = None if query_side or strength == 0 else adapter_sha256
    return space_fingerprint(base_sha256, adapter, strength, pooling=pooling, dimensions=dimensions)


def weights_space(base_sha256: str, weights: Weights | None, strength: float, pooling: str, dimensions: int) -> str:
    """Return `row_space` of a row with the adapter ``weights``, None: of the bare base."""
    adapter, query_side = (None, False) if weights is None else (weights.fingerprint, weights.query_side)
    return row_space(base_sha256, adapter, strength, query_side=query_side, pooling=pooling, dimensions=dimensions)


def row_prompts(
    adapters: Sequence[Weights | None], name: str | None, base_prompts: Mapping[str, str | None]
) -> list[str | None]:
    """Return each row's prompt of that name: its adapter's, else the base's, None where neither has it; no name: ""."""
    if name is None:
        return [""] * len(adapters)
    base = base_prompts.get(name)
    return [base if adapter is None else adapter.prompts.get(name, base) for adapter in adapters]


def row_limit(adapter: Weights | None, limit: int | None, positions: int | None) -> int | None:
    """Return how many tokens are read of a row: as many as its adapter was trained with, else ``limit``.

    ``positions`` is the number of tokens that the base has places for; None: unbounded.
    """
    trained = None if adapter is None else adapter.max_length
    if not trained:
        return limit
    return trained if positions is None else min(trained, positions)


def document_adapter(adapter: W | None) -> W | None:
    """Return the adapter for documents: a query-side one leaves them to the base."""
    return None if adapter is None or adapter.query_side else adapter


def rows_by_key(keys: Iterable[K]) -> dict[K, list[int]]:
    """Return the row numbers of each key, in order of first appearance."""
    groups: dict[K, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return groups


def limit_of(model: TextModel, task: str | None = None) -> int | None:
    """Return how many tokens of a text the base reads, for a ``task`` (``query``, ``document``) that has its own."""
    limit = getattr(model[0], f"{task}_length", None) or model.max_seq_length
    stated = int(limit) if limit and limit < _NO_LIMIT else None
    positions = max_positions(getattr(model[0], "auto_model", None))
    return min((number for number in (stated, positions) if number is not None), default=None)


def max_length_of(model: TextModel) -> int:
    """Return `limit_of` the base, or where it has none, what its config states, or 512."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    stated = getattr(config, "max_position_embeddings", None)
    default = stated if isinstance(stated, int) and stated > 0 else _DEFAULT_LENGTH
    return limit_of(model) or default


def pooling_of(encoder: Iterable[Any]) -> str:
    """Return how token vectors become one: the pooling's mode, then later modules, as ``mean`` or ``cls+dense``.

    Normalization does not count: the cosine is the same without it.
    """
    first, *rest = encoder
    parts = []
    for module in rest:
        mode = getattr(module, "pooling_mode", None)
        if mode is not None:
            parts.append(mode if isinstance(mode, str) else "+".join(mode))
        elif type(module).__name__ not in ("Normalize", "Dropout"):
            parts.append(type(module).__name__.lower())
    return "+".join(parts) or type(first).__name__.lower()


@dataclass(frozen=True)
class VectorSpace:
    """The space of an encoder's vectors, as recorded with every file of them.

    Vectors compare only where ``fingerprint`` is the same; ``base`` and ``adapter`` are for people.

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
    """Return the space of ``encoder``; ``adapter`` is the folder of the adapter active in it, None for a bare model.

    Args:
        encoder: what `load_encoder` returned.
        adapter: its adapter's folder, or that of a model trained whole (method ``full``).
        base: what to call the base; None takes the place it was loaded from.

    Raises:
        ScionsError: the weights of base or adapter cannot be read.
    """
    pooling, dimensions = pooling_of(encoder), int(encoder.get_embedding_dimension() or 0)
    origin = getattr(getattr(encoder[0], "auto_model", None), "name_or_path", "")
    name, query_side = base or str(origin or "unknown/in-memory"), False
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
    fingerprint = row_space(first, second, query_side=query_side, pooling=pooling, dimensions=dimensions)
    adapter_name = None if adapter is None else adapter.name
    version = None if second is None else second[:12]
    return VectorSpace(fingerprint, base_id(name), adapter_name, pooling, dimensions, query_side, version)


class BaseEncoder(TextModel, Protocol):
    """Attributes of an encoder that `BaseInfo.of` reads; a `DomainEncoder` has them."""

    base_name: str
    base_sha256: str
    prompts: Mapping[str, str | None]
    default_prompt_name: str | None
    transformers_model: Any

    def get_embedding_dimension(self) -> int | None: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class BaseInfo:
    """The base that a server was started with.

    Attributes:
        id: its name, as on the Hub.
        sha256: `scions.store.base_fingerprint`.
        pooling: `pooling_of` it.
        dimensions: length of its vectors.
        vocabulary: number of token ids; an id lies below it.
        max_length: tokens read of a text.
        prompts: texts put before an input, by name.
        default_prompt: the one used where a request names none; None for no prompt.
        positions: tokens that the network has places for; None where that is unbounded.
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
    def of(cls, encoder: BaseEncoder) -> BaseInfo:
        """Read off an encoder.

        Raises:
            ScionsError: the base's weights cannot be read.
            UsageError: its pooling leaves prompts out, which rows of tokens do not tell apart.
        """
        prompts = {name: text or "" for name, text in (encoder.prompts or {}).items()}
        if any(prompts.values()) and any(not getattr(module, "include_prompt", True) for module in encoder):
            raise UsageError(f"base {encoder.base_name!r}: its pooling leaves prompts out, which the server cannot do")
        network = encoder.transformers_model
        return cls(
            id=encoder.base_name,
            sha256=encoder.base_sha256,
            pooling=pooling_of(encoder),
            dimensions=int(encoder.get_embedding_dimension() or 0),
            vocabulary=int(network.config.vocab_size),
            max_length=max_length_of(encoder),
            prompts=prompts,
            default_prompt=encoder.default_prompt_name,
            positions=max_positions(network),
        )

    def limit(self, weights: Weights | None) -> int:
        """Return how many tokens are read of a text with an adapter, or with none."""
        return row_limit(weights, self.max_length, self.positions) or self.max_length

    def space(self, weights: Weights | None, strength: float, dimensions: int) -> str:
        """Return the fingerprint of the space of a row's vector of that many ``dimensions``."""
        return weights_space(self.sha256, weights, strength, self.pooling, dimensions)
