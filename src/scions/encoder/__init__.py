"""Encode with one base model and any number of adapters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scions.deprecation import renamed_names

if TYPE_CHECKING:
    from scions.encoder.bank import AdapterBank
    from scions.encoder.base_info import VectorSpace, pooling_of, space_of
    from scions.encoder.domain_encoder import DomainEncoder
    from scions.encoder.inject import inject_adapter
    from scions.encoder.loading import load_encoder

__all__ = [
    "AdapterBank", "DomainEncoder", "VectorSpace", "inject_adapter",
    "load_encoder", "pooling_of", "space_of",
]  # fmt: skip

_LAZY = {
    "AdapterBank": "bank",
    "DomainEncoder": "domain_encoder",
    "VectorSpace": "base_info",
    "inject_adapter": "inject",
    "load_encoder": "loading",
    "pooling_of": "base_info",
    "space_of": "base_info",
}


def _load(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"scions.encoder.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'scions.encoder' has no attribute {name!r}")


__getattr__ = renamed_names(
    __name__,
    _load,
    AdapterWeights="scions.engine.adapter_weights.AdapterWeights",
    EmbedReport="scions.vectors.EmbedReport",
    Space="scions.encoder.VectorSpace",
    embed_file="scions.vectors.embed_file",
    graft_weights="scions.encoder.inject_adapter",
)
