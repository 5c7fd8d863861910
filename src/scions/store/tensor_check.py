"""The header of a safetensors file, checked against the file before anything is built from it."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from scions.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 * 2**20  # bytes; an adapter's is a few kB, a base model's with 10 000 tensors about 1 MB

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: its name, dtype (safetensors' spelling), shape and place in the file in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> list[TensorEntry]:
    """The tensors of a safetensors file in the order of their bytes, without reading the bytes themselves.

    Format: 8 bytes little-endian header length, JSON header, tensors without gaps up to the end of the file.

    Raises:
        AdapterError: the file is missing, cut short, too long, or its header contradicts itself.
    """
    try:
        with open(path, "rb") as stream:
            return list(_entries(path, stream))
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}") from error


def _entries(path: Path, stream: BinaryIO) -> Iterator[TensorEntry]:
    size = os.fstat(stream.fileno()).st_size
    if size < 8:
        raise AdapterError(f"{path}: is cut short: {size} bytes, a safetensors file has at least 8")
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > MAX_HEADER:
        raise AdapterError(f"{path}: is no safetensors file: its header would have {length} bytes (limit {MAX_HEADER})")
    if 8 + length > size:
        raise AdapterError(f"{path}: is cut short: {size} bytes, its header alone takes {8 + length}")
    header = _parse(path, stream.read(length))
    header.pop("__metadata__", None)
    entries = sorted((_entry(path, name, value) for name, value in header.items()), key=lambda e: (e.start, e.stop))
    data = 8 + length
    at = 0
    for entry in entries:
        if entry.start != at:
            raise AdapterError(f"{path}: tensor {entry.name!r} starts at byte {entry.start}, expected {at}")
        at = entry.stop
    if data + at > size:
        raise AdapterError(f"{path}: is cut short: {size} bytes, its header promises {data + at}")
    if data + at < size:
        raise AdapterError(f"{path}: has {size - data - at} bytes beyond its last tensor ({size}, not {data + at})")
    for entry in entries:
        yield TensorEntry(entry.name, entry.dtype, entry.shape, data + entry.start, data + entry.stop)


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: its header is not what safetensors writes: {error}") from error
    if not isinstance(header, dict):
        raise AdapterError(f"{path}: its header is a {type(header).__name__}, expected a JSON object")
    return header


def _entry(path: Path, name: str, value: Any) -> TensorEntry:
    problem = f"{path}: tensor {name!r}"
    if not isinstance(value, dict):
        raise AdapterError(f"{problem}: its description is not a JSON object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise AdapterError(f"{problem}: unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(_natural(n) for n in shape):
        raise AdapterError(f"{problem}: {shape!r} is not a shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(n) for n in offsets):
        raise AdapterError(f"{problem}: {offsets!r} are not two offsets")
    start, stop = offsets
    expected = math.prod(shape) * ITEM_BITS[dtype] // 8
    if stop - start != expected:
        raise AdapterError(f"{problem}: {dtype} of shape {shape} takes {expected} bytes, its offsets {stop - start}")
    return TensorEntry(name, dtype, tuple(shape), start, stop)


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


_SHOWN = 4


def check_tensors(name: str, given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Raises AdapterError where names or shapes are not those expected; names them."""
    other = [
        f"{key} is {list(given[key].shape)}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in given and tuple(given[key].shape) != tuple(shape)
    ]
    problems = (
        ("missing", [key for key in expected if key not in given]),
        ("that have no place in this base", [key for key in given if key not in expected]),
        ("of another shape", other),
    )
    told = [
        f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''}"
        for what, keys in problems
        if keys
    ]
    if told or not expected:
        raise AdapterError(f"adapter {name!r}: its tensors do not fit the base: {'; '.join(told) or 'there are none'}")
