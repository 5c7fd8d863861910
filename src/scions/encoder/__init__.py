"""Encode with one base model and any number of adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    "AdapterBank": "scions.encoder.bank",
    "DomainEncoder": "scions.encoder.domain_encoder",
    "VectorSpace": "scions.encoder.base_info",
    "inject_adapter": "scions.encoder.inject",
    "load_encoder": "scions.encoder.loading",
    "pooling_of": "scions.encoder.base_info",
    "space_of": "scions.encoder.base_info",
}

__getattr__ = renamed_names(
    __name__,
    _LAZY,
    AdapterWeights="scions.engine.adapter_weights.AdapterWeights",
    EmbedReport="scions.vectors.EmbedReport",
    Space="scions.encoder.VectorSpace",
    embed_file="scions.vectors.embed_file",
    graft_weights="scions.encoder.inject_adapter",
)
