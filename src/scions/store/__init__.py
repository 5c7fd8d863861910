"""Adapters as folders, and the base model they belong to."""

from __future__ import annotations

from scions.deprecation import renamed_names
from scions.store.atomic import write_file, write_folder
from scions.store.base import base_fingerprint, base_id, load_base, resolve_base
from scions.store.manifest import Base, DataRecord, DomainStatistics, Initialization, Manifest
from scions.store.names import check_name
from scions.store.registry import AdapterEntry, default_root, find_adapter, is_whole_model, list_adapters, read_adapter
from scions.store.space import check_same_space, space_fingerprint
from scions.store.weights import adapter_fingerprint, read_weights

__all__ = [
    "AdapterEntry", "Base", "DataRecord", "DomainStatistics", "Initialization", "Manifest",
    "adapter_fingerprint", "base_fingerprint", "base_id", "check_name", "check_same_space", "default_root",
    "find_adapter", "is_whole_model", "list_adapters", "load_base", "read_adapter", "read_weights", "resolve_base",
    "space_fingerprint", "write_file", "write_folder",
]  # fmt: skip

__getattr__ = renamed_names(__name__, Initialisation="scions.store.Initialization", publish="scions.store.write_folder")
