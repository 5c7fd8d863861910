"""Read and write `scions.json`: an adapter's base, training data, recipe, scores and domain statistics."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scions.errors import AdapterError
from scions.store.names import MANIFEST_FILE
from scions.store.records import FieldError, from_object, to_object

FORMAT_VERSION = 1
# A reader of version 1 would apply a query-side adapter to documents too; version 2 makes it refuse.
QUERY_SIDE_VERSION = NEWEST_VERSION = 2
METHODS = ("houlsby", "pfeiffer", "parallel", "lora", "full")


@dataclass(frozen=True, kw_only=True)
class Base:
    """The frozen model: `id` as on the Hub, `weights_sha256` from `base_fingerprint`."""

    id: str
    weights_sha256: str
    architecture: str
    hidden_size: int
    layers: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Initialization:
    """The adapter's initial weights: adapters of different `id` mix badly."""

    seed: int
    id: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The training data; `rows` and `truncated` count by part (`train`, `dev`, `test`)."""

    source: str
    fingerprint: str
    shape: str
    rows: dict[str, int]
    truncated: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DomainStatistics:
    """For routing: mean base embedding of `n` training texts and their variance about it."""

    mean: list[float]
    spherical_variance: float
    n: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `scions.json`.

    `rank` is the bottleneck's width or LoRA's rank, None for `full`. `trainable_share` is the number of trained
    parameters over all parameters of the base, 0 to 1. `scores` holds the figures of the verdict (base and adapter with
    intervals, general set, drift, baseline). `created` is ISO 8601 in UTC. Keys that this version does not know are
    kept in `extra`, here and in the nested records, and written back.

    `query_side` says that only queries pass through the adapter: documents are the base's, and `space_fingerprint` is
    the base's too. It needs `format_version` 2.
    """

    format_version: int = FORMAT_VERSION
    name: str
    base: Base
    method: str
    query_side: bool = False
    placement: dict[str, Any]
    rank: int | None
    trainable_parameters: int
    trainable_share: float
    initialisation: Initialization
    data: DataRecord
    pooling: str
    max_length: int
    seed: int
    space_fingerprint: str
    prompts: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    domain: DomainStatistics | None = None
    versions: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=lambda: now())
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the file's text: indented JSON with a newline at the end.

        Raises:
            AdapterError: a field has the wrong type or a value that JSON cannot hold; names the field.
        """
        try:
            value = to_object(self)
            _check(self)
        except FieldError as error:
            raise AdapterError(f"{MANIFEST_FILE} of adapter {self.name!r}: {error}") from error
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = MANIFEST_FILE) -> Manifest:
        """Read a file's text; `source` is its name in messages.

        Raises:
            AdapterError: not JSON, a missing field, a wrong type or a newer format; names `source` and field.
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise AdapterError(f"{source}: is not valid JSON: {error}") from error
        try:
            version = value.get("format_version") if isinstance(value, dict) else None
            # First of all: in a newer format, any other complaint would mislead.
            if type(version) is int and version > NEWEST_VERSION:
                raise FieldError(
                    f"format_version: {version} is newer than {NEWEST_VERSION}, the newest that this Scions "
                    "reads; pip install --upgrade scions"
                )
            if isinstance(value, dict) and version is None:
                raise FieldError("format_version: is missing")
            manifest = from_object(cls, value)
            _check(manifest)
        except FieldError as error:
            raise AdapterError(f"{source}: {error}") from error
        return manifest

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read `scions.json` in an adapter's folder.

        Raises:
            AdapterError: as `from_json`, or there is no such file.
        """
        path = Path(folder) / MANIFEST_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise AdapterError(f"{folder}: no {MANIFEST_FILE}") from None
        except OSError as error:
            raise AdapterError(f"{path}: cannot be read: {error.strerror}") from error
        return cls.from_json(content, source=str(path))


def now() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _check(manifest: Manifest) -> None:
    if manifest.format_version < 1:
        raise FieldError(f"format_version: {manifest.format_version}, the first is 1")
    if manifest.query_side and manifest.format_version < QUERY_SIDE_VERSION:
        raise FieldError(
            f"format_version: {manifest.format_version}, but a query-side adapter needs {QUERY_SIDE_VERSION}: readers "
            "of version 1 would apply it to documents"
        )
    if manifest.method not in METHODS:
        raise FieldError(f"method: {manifest.method!r}, expected one of {', '.join(METHODS)}")
    if not re.fullmatch(r"[0-9a-f]{64}", manifest.base.weights_sha256):
        raise FieldError(f"base.weights_sha256: {manifest.base.weights_sha256!r}, expected 64 hex digits")
    if not 0 <= manifest.trainable_share <= 1:
        raise FieldError(f"trainable_share: {manifest.trainable_share}, expected a share from 0 to 1")
    try:
        moment = datetime.fromisoformat(manifest.created.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None or moment.utcoffset():
        raise FieldError(f"created: {manifest.created!r}, expected ISO 8601 in UTC such as 2026-01-31T12:00:00Z")
