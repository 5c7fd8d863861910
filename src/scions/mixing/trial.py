"""Score mixtures and pruned adapters on their base before they are published."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scions.encoder import DomainEncoder
from scions.encoder.base_info import document_adapter
from scions.encoder.roles import RoleEncoder, encode_role
from scions.engine.adapter_weights import AdapterWeights
from scions.errors import AdapterError
from scions.mixing.adapters import StoredAdapter
from scions.publishing.adapter_files import write_adapter
from scions.store import Manifest, resolve_base


class TrialBase:
    """A base loaded once, on which adapters are read from files as published ones are.

    Args:
        base: a folder or an id on the Hub.
        weights_sha256: expected `scions.store.base_fingerprint`.
        dtype: as `DomainEncoder`'s; float32 for figures that are published.

    Raises:
        ScionsError: the base cannot be loaded.
        AdapterError: its weights are not the expected ones.
    """

    def __init__(self, base: str, weights_sha256: str, dtype: str | None = "float32") -> None:
        self.encoder = DomainEncoder(resolve_base(base), dtype=dtype)
        if self.encoder.base_sha256 != weights_sha256:
            raise AdapterError(
                f"base {base!r} has weights {self.encoder.base_sha256[:12]}, the adapters' base {weights_sha256[:12]}"
            )

    @classmethod
    def of(cls, adapter: StoredAdapter, base: str | None = None, dtype: str | None = "float32") -> TrialBase:
        """Return the base of an adapter, loaded from ``base`` where that is given."""
        return cls(base or adapter.manifest.base.id, adapter.manifest.base.weights_sha256, dtype)

    def bare(self) -> AdaptedEncoder:
        """Return the base alone."""
        return AdaptedEncoder(self.encoder, None)

    def published(self, adapter: StoredAdapter) -> AdaptedEncoder:
        """Return the base with an adapter from its folder. Raises AdapterError where it does not fit."""
        return AdaptedEncoder(self.encoder, self.encoder.read_adapter(adapter.folder, adapter.name))

    def trial(
        self, tensors: Mapping[str, Tensor], config: Mapping[str, Any], manifest: Manifest, *, sparse: bool = False
    ) -> AdaptedEncoder:
        """Return the base with an adapter of these tensors. Raises AdapterError where it does not fit."""
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder), tensors, config, manifest, sparse=sparse)
            return AdaptedEncoder(self.encoder, self.encoder.read_adapter(Path(folder), "trial-adapter"))


class AdaptedEncoder(RoleEncoder):
    """One adapter on its base; a query-side adapter leaves documents to the base."""

    def __init__(self, encoder: DomainEncoder, adapter: AdapterWeights | None) -> None:
        self.encoder, self.adapter = encoder, adapter

    def encode_role(self, role: str | None, sentences: Sequence[str], **_: Any) -> np.ndarray:
        """Return unit vectors, ``[sentences, dimensions]`` float32."""
        adapter = document_adapter(self.adapter) if role == "document" else self.adapter
        vectors = encode_role(
            self.encoder, role, list(sentences), adapter=adapter, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)
