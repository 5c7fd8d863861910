"""Check safetensors files, and the tensors of an adapter, before anything is built from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 * 2**20  # bytes; an adapter's is a few kB, a base model's with 10 000 tensors about 1 MB
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: its name, dtype (safetensors' spelling), shape and place in the file in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> list[TensorEntry]:
    """Return the tensors of a safetensors file without reading their bytes.

    `safetensors.safe_open` refuses a header that contradicts itself or does not fit the file's size. It takes the last
    of two tensors of one name, and headers of up to 100 MB: these two are checked here.

    Raises:
        AdapterError: the file is missing, cut short, too long, or its header contradicts itself.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as stream:
            size, prefix = os.fstat(stream.fileno()).st_size, stream.read(8)
            length = int.from_bytes(prefix, "little")
            if size >= 8 and length > MAX_HEADER:
                raise AdapterError(
                    f"{path}: is no safetensors file: its header would have {length} bytes (limit {MAX_HEADER})"
                )
            if size < 8 + length:
                raise AdapterError(f"{path}: is cut short: {size} bytes, its header alone takes {8 + length}")
            raw = stream.read(length)
        with safe_open(path, framework="numpy"):
            header = json.loads(raw, object_pairs_hook=_unique)
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise AdapterError(f"{path}: is cut short or damaged: {error}") from error
    header.pop("__metadata__", None)
    return [
        TensorEntry(name, entry["dtype"], tuple(entry["shape"]), *(8 + length + n for n in entry["data_offsets"]))
        for name, entry in header.items()
    ]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return unique


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file that `read_header` has checked, on the CPU.

    Raises:
        AdapterError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path}: cannot be read: {error}") from error
    return tensors


def check_tensors(name: str, tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Raise AdapterError, naming the tensors, where names or shapes of an adapter's differ from those expected."""
    reshaped = [
        f"{key} is {list(tensors[key].shape)}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in tensors and tuple(tensors[key].shape) != tuple(shape)
    ]
    problems = (
        ("missing", [key for key in expected if key not in tensors]),
        ("that have no place in this base", [key for key in tensors if key not in expected]),
        ("of another shape", reshaped),
    )
    parts = [
        f"{len(keys)} {problem}: {', '.join(keys[:_NAMES_SHOWN])}{', …' if len(keys) > _NAMES_SHOWN else ''}"
        for problem, keys in problems
        if keys
    ]
    if parts or not expected:
        raise AdapterError(f"adapter {name!r}: its tensors do not fit the base: {'; '.join(parts) or 'there are none'}")
