"""Read and write a pruned adapter's file: of each matrix, only the values that differ from its initial ones.

A sparse tensor `T` is stored as three: `T.mask` (U8, a bit a value in the order of `numpy.packbits`, 1 where the value
is stored), `T.values` (F32, the stored values in order) and `T.shape` (I64). The other values are drawn again from the
adapter's seed. `start.sum` (F64) is a checksum of what was drawn when the file was written: the sum of squares, each
times a number from 1 to 2 that grows with its position, so that reading fails where another version of PyTorch draws
other numbers, or the same in another order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.errors import AdapterError
from scions.store.names import CONFIG_FILE, SPARSE_WEIGHTS_FILE
from scions.store.tensor_check import TensorEntry, load_tensors, read_header

if TYPE_CHECKING:
    from torch import Tensor

MASK, VALUES, SHAPE = ".mask", ".values", ".shape"
START = "start.sum"
# A last digit that is rounded otherwise here and there stays below; other draws change the sum by some 1e-3 of it.
_TOLERANCE = 1e-8


def write_sparse(folder: Path, tensors: Mapping[str, Tensor], seed: int) -> Path:
    """Write an adapter's tensors (name -> float tensor), its matrices as differences from their initial values.

    Raises:
        AdapterError: none of its tensors has initial values: it is no bottleneck.
    """
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from scions.adapters.initial import initial_weights

    start = initial_weights({name: tuple(tensor.shape) for name, tensor in tensors.items()}, seed)
    if not start:
        raise AdapterError(f"{folder}: none of its {len(tensors)} tensors is a bottleneck's; written densely only")
    out: dict[str, Tensor] = {START: _checksum(start)}
    for name, tensor in tensors.items():
        dense = tensor.detach().float().cpu().contiguous()
        if name not in start:
            out[name] = dense
            continue
        changed = (dense != start[name]).reshape(-1)
        out[name + MASK] = torch.from_numpy(np.packbits(changed.numpy()))
        out[name + VALUES] = dense.reshape(-1)[changed].clone()
        out[name + SHAPE] = torch.tensor(dense.shape, dtype=torch.int64)
    path = folder / SPARSE_WEIGHTS_FILE
    save_file(out, path, metadata={"format": "pt"})
    return path


def check_sparse(path: Path, dtypes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Check a file's header and return the tensors it stands for, each with the names of its parts.

    Raises:
        AdapterError: a part is missing, of another dtype or number of dimensions, or a name is given twice.
    """
    entries = {entry.name: entry for entry in read_header(path)}
    tensors: dict[str, tuple[str, ...]] = {}
    for name, entry in entries.items():
        whole, dot, part = name.rpartition(".")
        if name == START:
            _check_entry(path, entry, "F64")
        elif dot + part in (MASK, VALUES, SHAPE):
            parts = (whole + MASK, whole + VALUES, whole + SHAPE)
            missing = [key for key in parts if key not in entries]
            if missing or whole in entries:
                raise AdapterError(
                    f"{path}: tensor {whole!r} {f'lacks {missing[0]!r}' if missing else 'is there twice'}"
                )
            for key, dtype in zip(parts, ("U8", "F32", "I64"), strict=True):
                _check_entry(path, entries[key], dtype)
            tensors[whole] = parts
        else:
            if entry.dtype not in dtypes:
                raise AdapterError(f"{path}: tensor {name!r} is {entry.dtype}, expected {', '.join(dtypes)}")
            tensors[name] = (name,)
    if START not in entries or not any(len(parts) > 1 for parts in tensors.values()):
        raise AdapterError(f"{path}: is no sparse adapter: no {START} or no tensor with {MASK}")
    return tensors


def read_sparse(path: Path, dtypes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the dense tensors that a file stands for.

    Untrusted sizes are checked before anything is built from them: a shape needs as many bits as its mask has, a mask
    as many ones as there are values. So no file takes more than 32 times its own size in memory.

    Raises:
        AdapterError: as `check_sparse`, the parts contradict each other, or other initial values are drawn here.
    """
    import torch

    from scions.adapters.initial import initial_weights

    parts = check_sparse(path, dtypes)
    seed = _seed(path)
    raw = load_tensors(path)
    shapes: dict[str, tuple[int, ...]] = {}
    masks: dict[str, Any] = {}
    for name, keys in parts.items():
        if len(keys) == 1:
            shapes[name] = tuple(raw[name].shape)
        else:
            shapes[name], masks[name] = _unpack_mask(path, name, *(raw[key] for key in keys))
    start = initial_weights(shapes, seed)
    without = sorted(set(masks) - set(start))
    if without:
        raise AdapterError(f"{path}: tensor {without[0]!r} is no bottleneck's matrix, so it has no initial values")
    stored = float(raw[START][0]) if raw[START].numel() == 1 else math.nan
    drawn = float(_checksum(start)[0])
    if not abs(drawn - stored) <= _TOLERANCE * drawn:
        raise AdapterError(
            f"{path}: the initial values are not those it was written with (weighted sum of squares {drawn:.6f}, "
            f"not {stored:.6f}): the file is damaged, its {CONFIG_FILE} was changed, or this PyTorch draws differently"
        )
    tensors = {}
    for name, keys in parts.items():
        if len(keys) == 1:
            tensors[name] = raw[name]
            continue
        flat = start[name].reshape(-1)
        flat[torch.from_numpy(masks[name])] = raw[name + VALUES]
        tensors[name] = flat.reshape(shapes[name])
    return tensors


def _unpack_mask(path: Path, name: str, mask: Tensor, values: Tensor, shape: Tensor) -> tuple[tuple[int, ...], Any]:
    """Return the matrix's shape, and a flat boolean array of the values that are stored."""
    import numpy as np

    sizes = tuple(int(n) for n in shape)
    if len(sizes) != 2 or min(sizes) < 1:
        raise AdapterError(f"{path}: tensor {name!r}: {list(sizes)} is no matrix's shape")
    count = math.prod(sizes)
    needed = (count + 7) // 8
    where = f"{path}: tensor {name!r} of shape {list(sizes)}"
    if needed != mask.numel():
        raise AdapterError(f"{where} takes {needed} bytes of mask, not {mask.numel()}")
    bits = np.unpackbits(mask.numpy()).astype(bool)
    if bits[count:].any():
        raise AdapterError(f"{where}: its mask goes on beyond its {count} values")
    if int(bits.sum()) != values.numel():
        raise AdapterError(f"{where}: its mask selects {int(bits.sum())} values, {values.numel()} are stored")
    return sizes, bits[:count]


def _seed(path: Path) -> int:
    config = path.parent / CONFIG_FILE
    try:
        seed = json.loads(config.read_bytes())["init_seed"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(f"{config}: init_seed cannot be read, and {path.name} needs it: {error}") from error
    if type(seed) is not int:
        raise AdapterError(f"{config}: init_seed: expected a whole number, found {seed!r}")
    return seed


def _check_entry(path: Path, entry: TensorEntry, dtype: str) -> None:
    if entry.dtype != dtype or len(entry.shape) != 1:
        raise AdapterError(
            f"{path}: tensor {entry.name!r} is {entry.dtype} of shape {list(entry.shape)}, "
            f"expected {dtype} of 1 dimension"
        )


def _checksum(start: Mapping[str, Tensor]) -> Tensor:
    import torch

    flat = torch.cat([start[name].double().reshape(-1) for name in sorted(start)])
    return flat.square().dot(torch.linspace(1, 2, len(flat), dtype=torch.float64)).reshape(1)
