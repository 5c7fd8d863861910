"""Read an adapter's tensors after checking the file that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scions.errors import AdapterError
from scions.store.fingerprint import state_fingerprint, weights_fingerprint
from scions.store.names import SPARSE_WEIGHTS_FILE, WEIGHTS_FILE
from scions.store.sparse import check_sparse, read_sparse
from scions.store.tensor_check import load_tensors, read_header

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("F32", "F16", "BF16")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Return the tensors of `adapter_model.safetensors` (name -> CPU tensor, float32, float16 or bfloat16).

    A pruned adapter's `adapter_model.sparse.safetensors` gives the same: see `scions.store.sparse`.

    Raises:
        AdapterError: there is no such file (a pickle is never opened), it is cut short or damaged, or a tensor is of
            another dtype or holds a value that is not finite.
    """
    path = find_weights_file(folder)
    if path.name == SPARSE_WEIGHTS_FILE:
        tensors = read_sparse(path, DTYPES)
    else:
        check_weights(path)
        tensors = load_tensors(path)

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


def find_weights_file(folder: str | Path) -> Path:
    """Return the weights file of an adapter's folder: dense, or sparse where there is no dense one.

    Raises:
        AdapterError: there is none; a pickle in its place is named.
    """
    root = Path(folder)
    for path in (root / WEIGHTS_FILE, root / SPARSE_WEIGHTS_FILE):
        if path.is_file():
            return path
    pickles = sorted(path.name for pattern in _PICKLES for path in root.glob(pattern))
    if pickles:
        raise AdapterError(
            f"{root}: its weights are a pickle ({', '.join(pickles)}), which can run any code when it is "
            f"opened and is not read; save the adapter again as {WEIGHTS_FILE} (PEFT: save_pretrained)"
        )
    raise AdapterError(f"{root}: no {WEIGHTS_FILE}" if root.is_dir() else f"{root}: no such folder")


def check_weights(path: Path) -> None:
    """Check a file's header and size without reading its tensors; see `read_weights` for the errors."""
    if path.name == SPARSE_WEIGHTS_FILE:
        check_sparse(path, DTYPES)
        return
    entries = read_header(path)
    if not entries:
        raise AdapterError(f"{path}: holds no tensors")
    for entry in entries:
        if entry.dtype not in DTYPES:
            raise AdapterError(f"{path}: tensor {entry.name!r} is {entry.dtype}, expected {', '.join(DTYPES)}")


def adapter_fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 (64 hex digits) of an adapter's tensors by name, for `space_fingerprint`.

    A sparse file has the fingerprint of the tensors it stands for. Raises AdapterError as `read_weights`.
    """
    path = find_weights_file(folder)
    if path.name == SPARSE_WEIGHTS_FILE:
        return state_fingerprint(read_sparse(path, DTYPES))
    return weights_fingerprint([path])
