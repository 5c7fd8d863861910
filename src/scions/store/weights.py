"""An adapter's tensors, read only after the file has shown to be what it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scions.errors import AdapterError
from scions.store.fingerprint import state_fingerprint, weights_fingerprint
from scions.store.names import SPARSE_WEIGHTS_FILE, WEIGHTS_FILE
from scions.store.sparse import check_sparse, read_sparse
from scions.store.tensor_check import TensorEntry, read_header

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("F32", "F16", "BF16")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SHOWN = 4


def read_weights(folder: str | Path, expected: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
    """The tensors of `adapter_model.safetensors` (name -> CPU tensor, float32, float16 or bfloat16).

    A pruned adapter's `adapter_model.sparse.safetensors` gives the same: see `scions.store.sparse`.

    Args:
        folder: the adapter's folder.
        expected: the names and shapes there must be, neither more nor fewer; None takes what there is.

    Raises:
        AdapterError: there is no such file (a pickle is never opened), it is cut short or damaged, a tensor
            is of another dtype, missing, unexpected or of another shape, or holds a value that is not finite.
    """
    path = weights_path(folder)
    tensors = read_sparse(path, DTYPES) if path.name == SPARSE_WEIGHTS_FILE else _read_dense(path)
    if expected is not None:
        _compare(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, expected)

    import torch

    for name, tensor in tensors.items():
        # inf and NaN survive a multiplication by zero and a sum; no large sum can turn into inf on the way.
        if not bool((tensor * 0).sum() == 0):
            bad = int((~torch.isfinite(tensor)).sum())
            raise AdapterError(
                f"{path}: tensor {name!r} holds {bad} value(s) of {tensor.numel()} that are not finite "
                "(NaN or infinite): the training diverged or the file is damaged"
            )
    return tensors


def _read_dense(path: Path) -> dict[str, Tensor]:
    check_weights(path)

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path}: cannot be read: {error}") from error
    return tensors


def weights_path(folder: str | Path) -> Path:
    """The weights' file of an adapter's folder: dense, or sparse where there is no dense one.

    Raises:
        AdapterError: there is none; a pickle in its place is named.
    """
    root = Path(folder)
    for path in (root / WEIGHTS_FILE, root / SPARSE_WEIGHTS_FILE):
        if path.is_file():
            return path
    pickles = sorted(found.name for pattern in _PICKLES for found in root.glob(pattern))
    if pickles:
        raise AdapterError(
            f"{root}: its weights are a pickle ({', '.join(pickles)}), which can run any code when it is "
            f"opened and is not read; save the adapter again as {WEIGHTS_FILE} (PEFT: save_pretrained)"
        )
    raise AdapterError(f"{root}: no {WEIGHTS_FILE}" if root.is_dir() else f"{root}: no such folder")


def check_weights(path: Path) -> list[TensorEntry]:
    """Check a file's header and size without reading its tensors; see `read_weights` for the errors."""
    if path.name == SPARSE_WEIGHTS_FILE:
        check_sparse(path, DTYPES)
        return read_header(path)
    entries = read_header(path)
    if not entries:
        raise AdapterError(f"{path}: holds no tensors")
    for entry in entries:
        if entry.dtype not in DTYPES:
            raise AdapterError(f"{path}: tensor {entry.name!r} is {entry.dtype}, expected {', '.join(DTYPES)}")
    return entries


def adapter_fingerprint(folder: str | Path) -> str:
    """SHA-256 (64 hex digits) over an adapter's tensors by name, for `space_fingerprint`.

    A sparse file has the fingerprint of the tensors it stands for. Raises AdapterError as `read_weights`.
    """
    path = weights_path(folder)
    if path.name == SPARSE_WEIGHTS_FILE:
        return state_fingerprint(read_sparse(path, DTYPES))
    return weights_fingerprint([path])


def _compare(path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Sequence[int]]) -> None:
    missing = [f"{name} {_shape(shape)}" for name, shape in expected.items() if name not in found]
    surplus = [f"{name} {_shape(shape)}" for name, shape in found.items() if name not in expected]
    other = [
        f"{name} is {_shape(shape)}, expected {_shape(expected[name])}"
        for name, shape in found.items()
        if name in expected and tuple(expected[name]) != shape
    ]
    parts = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
        for what, names in (("missing", missing), ("unexpected", surplus), ("of another shape", other))
        if names
    ]
    if parts:
        raise AdapterError(f"{path}: its tensors do not fit: {'; '.join(parts)}")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
