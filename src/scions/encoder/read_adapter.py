"""Read a published adapter from its folder, with every check that needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.encoder.inject import to_peft_config
from scions.errors import AdapterError
from scions.store import Manifest, is_whole_model, read_adapter
from scions.store.fingerprint import state_fingerprint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PublishedAdapter:
    """An adapter as it lies in its folder; ``config`` is PEFT's object, ``fingerprint`` is of the tensors read."""

    name: str
    folder: Path
    config: Any
    manifest: Manifest
    tensors: dict[str, Tensor]
    fingerprint: str

    def fields(self) -> dict[str, Any]:
        """Return the fields of `AdapterWeights` that do not depend on how the base computes with it."""
        return {
            "name": self.name,
            "version": self.fingerprint[:12],
            "folder": self.folder,
            "fingerprint": self.fingerprint,
            "method": self.manifest.method,
            "rank": self.manifest.rank,
            "base": self.manifest.base.weights_sha256,
            "max_length": self.manifest.max_length or None,
            "prompts": dict(self.manifest.prompts),
            "query_side": self.manifest.query_side,
            "domain": self.manifest.domain,
        }


def read_published(folder: Path, name: str, base_sha256: str, base_name: str) -> PublishedAdapter:
    """Read the adapter in ``folder``, to be called ``name``, for the base of that fingerprint.

    Raises:
        AdapterError: it is damaged, of another base (both are named), a pickle, or no adapter but a whole model.
    """
    if is_whole_model(folder):
        raise AdapterError(
            f"{folder}: holds all weights of a model (method full) and is no adapter; DomainEncoder({str(folder)!r}) "
            "takes it as a base"
        )
    config, manifest, tensors = read_adapter(folder, base_sha256, base_name=base_name)
    # Of what was read, not of the folder: that may be published anew at any moment.
    return PublishedAdapter(name, folder, to_peft_config(config, name), manifest, tensors, state_fingerprint(tensors))
