"""A base with adapters that are not published yet: to score what a mixture or a pruned adapter would be worth."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scions.encoder import DomainEncoder
from scions.encoder.base_info import document_adapter
from scions.encoder.roles import RoleEncoder, encode_role
from scions.errors import AdapterError
from scions.mixing.adapters import Member
from scions.publishing.adapter_files import write_adapter
from scions.routing.domains import domain_vectors
from scions.store import Manifest, resolve_base

if TYPE_CHECKING:
    from torch import Tensor

    from scions.engine.adapter_weights import AdapterWeights

_TRIAL = "trial-adapter"


class TrialBase:
    """One base, loaded once; every adapter is read from files as a published one would be.

    Args:
        base: a folder or an id on the Hub.
        weights_sha256: what its weights must be.
        dtype: as `DomainEncoder`'s; float32 for figures that are published.

    Raises:
        ScionsError: the base cannot be loaded.
        AdapterError: its weights are others.
    """

    def __init__(self, base: str, weights_sha256: str, dtype: str | None = "float32") -> None:
        self.encoder = DomainEncoder(resolve_base(base), dtype=dtype)
        if self.encoder.base_sha256 != weights_sha256:
            raise AdapterError(
                f"base {base!r} has weights {self.encoder.base_sha256[:12]}, the adapters' base {weights_sha256[:12]}"
            )

    @classmethod
    def of(cls, member: Member, base: str | None = None, dtype: str | None = "float32") -> TrialBase:
        """For an adapter: its own base, or ``base`` where that lies elsewhere."""
        return cls(base or member.manifest.base.id, member.manifest.base.weights_sha256, dtype)

    def bare(self) -> AdaptedEncoder:
        """The base alone."""
        return AdaptedEncoder(self.encoder, None)

    def domain_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """`scions.routing.domains.domain_vectors` of the base."""
        return domain_vectors(self.encoder, texts)

    def published(self, member: Member) -> AdaptedEncoder:
        """An adapter as it lies in its folder. Raises AdapterError where it does not fit the base."""
        return AdaptedEncoder(self.encoder, self.encoder.read_adapter(member.folder, member.name))

    def trial(
        self, tensors: Mapping[str, Tensor], config: Mapping[str, Any], manifest: Manifest, *, sparse: bool = False
    ) -> AdaptedEncoder:
        """An adapter of these tensors, by way of files. Raises AdapterError where it does not fit the base."""
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder), tensors, config, manifest, sparse=sparse)
            return AdaptedEncoder(self.encoder, self.encoder.read_adapter(Path(folder), _TRIAL))


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
