"""The space an encoder's vectors lie in, as a record that goes with every file of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scions.store import Manifest, adapter_fingerprint, base_fingerprint, base_id, space_fingerprint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Space:
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


def space_of(encoder: SentenceTransformer, adapter: Path | None = None, *, base: str | None = None) -> Space:
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
    return Space(fingerprint, base_id(name), called, pooling, dimensions, query_side, version)


def is_whole_model(adapter: Path) -> bool:
    """Whether a published folder holds all weights of a model (method ``full``) instead of an adapter's."""
    return (adapter / "modules.json").is_file() and Manifest.read(adapter).method == "full"


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
