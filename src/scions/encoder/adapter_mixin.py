"""The methods of sentence-transformers that manage adapters, over a bank beside the model instead of inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from scions.deprecation import renamed_arguments
from scions.encoder.adapter_choice import default_name
from scions.encoder.arguments import check_load
from scions.encoder.bank import AdapterBank, find
from scions.encoder.row_engine import RowEngine
from scions.engine.adapter_weights import AdapterWeights
from scions.errors import AdapterError, UsageError
from scions.store import base_fingerprint, check_name, find_adapter, is_whole_model, read_adapter
from scions.store.registry import PublishedAdapter


class AdapterMixin:
    """Load, choose and delete adapters by the names that sentence-transformers, transformers and PEFT use."""

    base_name: str
    _bank: AdapterBank
    _engine: RowEngine
    _default: str | None

    @property
    def adapters(self) -> Mapping[str, AdapterWeights]:
        """The adapters loaded at this moment, by name; read-only."""
        return self._bank.snapshot()

    @cached_property
    def base_sha256(self) -> str:
        """`scions.store.base_fingerprint` of the base."""
        return base_fingerprint(self)

    @renamed_arguments(path_or_name="peft_model_id", name="adapter_name")
    def load_adapter(
        self, peft_model_id: str | Path, adapter_name: str | None = None, replace: bool = False, **options: Any
    ) -> AdapterWeights:
        """Load a published adapter.

        Args:
            peft_model_id: its folder, or its name where `scions.store.default_root` says adapters lie.
            adapter_name: its name in this encoder; None: that of its folder.
            replace: put it in the place of one of that name; calls under way finish with the old one.
            options: transformers' further arguments, where they ask for what holds here anyway.

        Returns:
            What was loaded.

        Raises:
            AdapterError: there is none, it is damaged, of another base, of a kind that cannot be chosen per row, or
                the name is taken or not allowed.
            UsageError: an option that cannot be served.
        """
        check_load(options)
        folder = find_adapter(peft_model_id)
        name = check_name(folder.resolve().name if adapter_name is None else adapter_name)
        weights = self.read_adapter(folder, name)
        self._bank.load(weights, replace)
        return weights

    def read_adapter(self, folder: Path, name: str) -> AdapterWeights:
        """Read a published adapter without loading it, for `encode_rows`. Raises AdapterError as `load_adapter`."""
        if is_whole_model(folder):
            raise AdapterError(
                f"{folder}: holds all weights of a model (method full) and is no adapter; "
                f"DomainEncoder({str(folder)!r}) takes it as a base"
            )
        files = read_adapter(folder, self.base_sha256, base_name=self.base_name)
        return self._engine.prepare(PublishedAdapter(name, folder, *files))

    @renamed_arguments(name="adapter_name")
    def delete_adapter(
        self, adapter_name: str | Sequence[str] | None = None, *, adapter_names: str | Sequence[str] | None = None
    ) -> Any:
        """Remove an adapter, or each of a list, and return what was removed; ``adapter_names`` is transformers' word.

        Raises:
            AdapterError: there is none of that name; lists those that are loaded.
        """
        names = adapter_names if adapter_name is None else adapter_name
        if names is None or isinstance(names, str):
            return self._bank.delete(str(names))
        for name in names:
            find(self.adapters, name)
        return [self._bank.delete(name) for name in names]

    @renamed_arguments(name="adapter_name")
    def set_adapter(self, adapter_name: str | Sequence[str] | None) -> None:
        """Choose the adapter of ``encode`` calls that name none: a name, or None for the bare base.

        Raises:
            AdapterError: it is not loaded; lists those that are.
            UsageError: a list of several, or ``"auto"`` or ``"auto-rows"``, which would decide anew in every call.
        """
        self._default = default_name(adapter_name, self.adapters)

    def active_adapters(self) -> list[str]:
        """Return what `set_adapter` chose: one name, or none."""
        return [] if self._default is None else [self._default]

    def _not_here(self, *_: Any, **__: Any) -> None:
        """Raise UsageError: adapters stay beside the model, which is not trained."""
        raise UsageError(
            "a DomainEncoder keeps adapters beside the model: load_adapter, set_adapter and delete_adapter do that; "
            "train with scions.train, or on a plain SentenceTransformer, and load what was published"
        )

    add_adapter = enable_adapters = disable_adapters = active_adapter = get_adapter_state_dict = _not_here
