"""The JSON record of a vector file: the space of the vectors, their form and the texts they were made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.encoder.base_info import VectorSpace
from scions.errors import DataError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

METADATA = b"scions"  # key of the record in parquet's metadata

_HEAD = 2**16  # bytes of the source that are hashed


def record_path(vectors: Path) -> Path:
    """Return the path of the record beside a vector file."""
    return vectors.with_name(vectors.name + ".json")


def state_path(vectors: Path) -> Path:
    """Return the path of the state that an unfinished run keeps beside a vector file."""
    return vectors.with_name(f".{vectors.name}.unfinished.json")


def space_settings(space: VectorSpace) -> dict[str, Any]:
    """Return the settings by which a run that is resumed recognizes its space."""
    # The fingerprint of queries is the base's and does not name the adapter.
    version = space.adapter_version if space.query_side else None
    return {"space": space.fingerprint, "adapter_version": version, "dimensions": space.dimensions}


def make_record(
    space: VectorSpace, settings: Mapping[str, Any], source: Path, encoder: SentenceTransformer, truncated: int
) -> dict[str, Any]:
    """Return the record of vectors written with these settings of `scions.vectors.embed.embed_file`.

    Args:
        space: of the vectors.
        settings: of the run.
        source: the file of texts.
        encoder: encoded them.
        truncated: number of texts longer than the encoder reads.
    """
    described = asdict(space)
    return {
        "space": described.pop("fingerprint"),
        **described,
        "rows": settings["rows"],
        "dtype": settings["dtype"],
        # A model that ends in a normalizing module gives unit vectors, asked or not.
        "normalised": settings["normalize"] or type(encoder[-1]).__name__ == "Normalize",
        "prompt": settings["prompt"],
        "max_length": settings["max_length"],
        "truncated": truncated,
        "source": {"name": source.name, "column": settings["column"], **settings["source"]},
    }


def read_record(vectors: Path) -> dict[str, Any]:
    """Read the record beside a vector file, or the one in parquet's metadata.

    Raises:
        DataError: there is none, or it names no space.
    """
    beside, record = record_path(vectors), None
    try:
        if beside.is_file():
            record = json.loads(beside.read_bytes())
        elif vectors.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            record = json.loads((pq.read_schema(vectors).metadata or {}).get(METADATA, b"null"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{vectors}: the record of its space cannot be read: {error}") from error
    if isinstance(record, dict) and isinstance(record.get("space"), str):
        return record
    stopped = state_path(vectors).is_file() and not beside.exists()
    raise DataError(
        f"{vectors}: nothing says which space these vectors lie in; expected {beside.name} beside it, as scions embed "
        f"writes it{'. A run was stopped while it wrote them: repeat it with `resume=True`' if stopped else ''}"
    )


def origin(record: Mapping[str, Any]) -> str:
    """Return base and adapter of a record, for messages."""
    adapter = record.get("adapter")
    return f"{record.get('base', 'unknown base')}{f', adapter {adapter}' if adapter else ''}"


def source_fingerprint(source: Path) -> dict[str, Any]:
    """Return size, time of the last change and hash of the beginning of a file of texts."""
    status = source.stat()
    with open(source, "rb") as stream:
        head = hashlib.sha256(stream.read(_HEAD)).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "head_sha256": head}
