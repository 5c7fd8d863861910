"""A base with what was grafted onto it, ready to encode: loading, the name of its space, and files of vectors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scions.encoder.adapter_weights import AdapterWeights
    from scions.encoder.bank import AdapterBank
    from scions.encoder.domain_encoder import DomainEncoder
    from scions.encoder.grafting import graft_weights
    from scions.encoder.loading import load_encoder
    from scions.encoder.space import Space, pooling_of, space_of
    from scions.encoder.stream import EmbedReport, embed_file

__all__ = [
    "AdapterBank", "AdapterWeights", "DomainEncoder", "EmbedReport", "Space", "embed_file", "graft_weights",
    "load_encoder", "pooling_of", "space_of",
]  # fmt: skip

_LAZY = {
    "AdapterBank": "bank",
    "AdapterWeights": "adapter_weights",
    "DomainEncoder": "domain_encoder",
    "EmbedReport": "stream",
    "Space": "space",
    "embed_file": "stream",
    "graft_weights": "grafting",
    "load_encoder": "loading",
    "pooling_of": "space",
    "space_of": "space",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"scions.encoder.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'scions.encoder' has no attribute {name!r}")
