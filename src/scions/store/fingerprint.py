"""Hash tensors in the order of their names, the same whatever file holds them."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scions.errors import AdapterError
from scions.store.tensor_check import TensorEntry, read_header

# Constant buffers that older transformers saved with the weights and newer ones do not.
_NOT_WEIGHTS = ("position_ids",)


def weights_fingerprint(files: Iterable[str | Path]) -> str:
    """Return the SHA-256 (64 hex digits) of name, dtype, shape and bytes of every tensor in the safetensors `files`.

    The order of tensors, their distribution over files and metadata do not matter. Computed once per process for an
    unchanged file (path, time and size).

    Raises:
        AdapterError: a file is damaged, or two files hold a tensor of the same name.
    """
    return _fingerprint_files(tuple(sorted(_stamp(Path(file)) for file in files)))


def state_fingerprint(state: dict[str, Any]) -> str:
    """Return the same hash of tensors in memory (name -> torch tensor of any shape)."""
    import torch

    def content(tensor: torch.Tensor) -> bytes:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        return bytes(flat.view(torch.uint8).numpy())

    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
    names |= {torch.int64: "I64", torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
    parts: dict[str, Part] = {}
    for name, tensor in state.items():
        if tensor.dtype not in names:
            raise AdapterError(f"tensor {name!r}: no fingerprint for {tensor.dtype}")
        parts[name] = (names[tensor.dtype], tuple(tensor.shape), functools.partial(content, tensor))
    return _digest(parts)


Stamp = tuple[str, int, int]  # path, time of the last change in ns, size in bytes
Part = tuple[str, tuple[int, ...], Callable[[], bytes]]  # dtype, shape, its bytes on demand


def _stamp(file: Path) -> Stamp:
    try:
        status = file.stat()
    except OSError as error:
        raise AdapterError(f"{file}: cannot be read: {error.strerror}") from error
    return str(file.resolve()), status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _fingerprint_files(stamps: tuple[Stamp, ...]) -> str:
    parts: dict[str, Part] = {}
    for path, _, _ in stamps:
        for entry in read_header(Path(path)):
            if entry.name in parts:
                raise AdapterError(f"{path}: tensor {entry.name!r} is in another file of the same model too")
            parts[entry.name] = (entry.dtype, entry.shape, functools.partial(_read_tensor, path, entry))
    return _digest(parts)


def _read_tensor(path: str, entry: TensorEntry) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(entry.start)
        return stream.read(entry.stop - entry.start)


@functools.lru_cache(maxsize=16)
def file_sha256(path: str, mtime_ns: int, size: int) -> str:
    """Return the SHA-256 of a file's bytes; with time and size in the cache's key, an unchanged file is read once."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _digest(parts: dict[str, Part]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parts):
        if name.rpartition(".")[2] in _NOT_WEIGHTS:
            continue
        dtype, shape, content = parts[name]
        head = f"{name}\0{dtype}\0{','.join(map(str, shape))}".encode()
        digest.update(struct.pack("<Q", len(head)))
        digest.update(head)
        digest.update(content())
    return digest.hexdigest()
