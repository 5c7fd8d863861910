"""A pruned adapter's file: of each matrix, only the values that differ from those every adapter starts with.

A tensor ``T`` that is held so stands in the file as three: ``T.mask`` (U8, a bit for each value, in the order of
``numpy.packbits``, 1 where a value is given), ``T.values`` (F32, the given values in order) and ``T.shape`` (I64).
Everything else is drawn again from the adapter's seed. ``start.sum`` (F64) holds the sum of squares of what was drawn
when the file was written, each times a number from 1 to 2 that grows with its place: should another version of PyTorch
draw differently, or the same numbers in another order, reading says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.errors import AdapterError
from scions.store.names import CONFIG_FILE, SPARSE_WEIGHTS_FILE
from scions.store.tensor_check import TensorEntry, read_header

if TYPE_CHECKING:
    from torch import Tensor

MASK, VALUES, SHAPE = ".mask", ".values", ".shape"
START = "start.sum"
# A last digit that is rounded otherwise here and there stays below; other draws change the sum by some 1e-3 of it.
_TOLERANCE = 1e-8


def write_sparse(folder: Path, tensors: Mapping[str, Tensor], seed: int) -> Path:
    """Write an adapter's tensors (name -> float tensor), its matrices as what differs from their first values.

    Raises:
        AdapterError: none of its tensors has first values: it is no bottleneck.
    """
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from scions.adapters.initial import initial_weights

    start = initial_weights({name: tuple(tensor.shape) for name, tensor in tensors.items()}, seed)
    if not start:
        raise AdapterError(f"{folder}: none of its {len(tensors)} tensors is a bottleneck's; written densely only")
    out: dict[str, Tensor] = {START: _sum(start)}
    for name, tensor in tensors.items():
        dense = tensor.detach().float().cpu().contiguous()
        if name not in start:
            out[name] = dense
            continue
        given = (dense != start[name]).reshape(-1)
        out[name + MASK] = torch.from_numpy(np.packbits(given.numpy()))
        out[name + VALUES] = dense.reshape(-1)[given].clone()
        out[name + SHAPE] = torch.tensor(dense.shape, dtype=torch.int64)
    path = folder / SPARSE_WEIGHTS_FILE
    save_file(out, path, metadata={"format": "pt"})
    return path


def check_sparse(path: Path, dtypes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Check a file's header; returns the tensors it stands for, each with the names of its parts.

    Raises:
        AdapterError: a part is missing, of another dtype or number of dimensions, or a name is given twice.
    """
    entries = {entry.name: entry for entry in read_header(path)}
    found: dict[str, tuple[str, ...]] = {}
    for name, entry in entries.items():
        whole, dot, part = name.rpartition(".")
        if name == START:
            _expect(path, entry, "F64", 1)
        elif dot + part in (MASK, VALUES, SHAPE):
            parts = (whole + MASK, whole + VALUES, whole + SHAPE)
            missing = [one for one in parts if one not in entries]
            if missing or whole in entries:
                raise AdapterError(
                    f"{path}: tensor {whole!r} {f'lacks {missing[0]!r}' if missing else 'is there twice'}"
                )
            for one, dtype in zip(parts, ("U8", "F32", "I64"), strict=True):
                _expect(path, entries[one], dtype, 1)
            found[whole] = parts
        else:
            if entry.dtype not in dtypes:
                raise AdapterError(f"{path}: tensor {name!r} is {entry.dtype}, expected {', '.join(dtypes)}")
            found[name] = (name,)
    if START not in entries or not any(len(parts) > 1 for parts in found.values()):
        raise AdapterError(f"{path}: is no sparse adapter: no {START} or no tensor with {MASK}")
    return found


def read_sparse(path: Path, dtypes: tuple[str, ...]) -> dict[str, Tensor]:
    """The dense tensors that a file stands for.

    What is untrusted is checked before anything is built from it: a shape must take as many bits as its mask has, a
    mask as many ones as there are values. So no file makes more than 32 times its own size.

    Raises:
        AdapterError: as `check_sparse`, the parts contradict each other, or the first values are drawn otherwise here.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from scions.adapters.initial import initial_weights

    parts = check_sparse(path, dtypes)
    seed = _seed(path)
    try:
        raw = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path}: cannot be read: {error}") from error
    shapes: dict[str, tuple[int, ...]] = {}
    given: dict[str, Any] = {}
    for name, own in parts.items():
        if len(own) == 1:
            shapes[name] = tuple(raw[name].shape)
        else:
            shapes[name], given[name] = _opened(path, name, *(raw[one] for one in own))
    start = initial_weights(shapes, seed)
    without = sorted(set(given) - set(start))
    if without:
        raise AdapterError(f"{path}: tensor {without[0]!r} is no bottleneck's matrix, so it has no first values")
    held = float(raw[START][0]) if raw[START].numel() == 1 else math.nan
    drawn = float(_sum({name: start[name] for name in start})[0])
    if not abs(drawn - held) <= _TOLERANCE * drawn:
        raise AdapterError(
            f"{path}: the first values do not come out as when it was written (weighted sum of squares {drawn:.6f}, "
            f"not {held:.6f}): the file is damaged, its adapter_config.json was changed, or this PyTorch draws "
            "otherwise"
        )
    tensors = {}
    for name, own in parts.items():
        if len(own) == 1:
            tensors[name] = raw[name]
            continue
        flat = start[name].reshape(-1)
        flat[torch.from_numpy(given[name])] = raw[name + VALUES]
        tensors[name] = flat.reshape(shapes[name])
    return tensors


def _opened(path: Path, name: str, mask: Tensor, values: Tensor, shape: Tensor) -> tuple[tuple[int, ...], Any]:
    """The shape, and a flat array that says which values are given."""
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
    given = bits[:count]
    if bits[count:].any():
        raise AdapterError(f"{where}: its mask goes on beyond its {count} values")
    if int(given.sum()) != values.numel():
        raise AdapterError(f"{where}: its mask names {int(given.sum())} values, {values.numel()} are given")
    return sizes, given


def _seed(path: Path) -> int:
    config = path.parent / CONFIG_FILE
    try:
        seed = json.loads(config.read_bytes())["init_seed"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(f"{config}: init_seed cannot be read, and {path.name} needs it: {error}") from error
    if type(seed) is not int:
        raise AdapterError(f"{config}: init_seed: expected a whole number, found {seed!r}")
    return seed


def _expect(path: Path, entry: TensorEntry, dtype: str, dimensions: int) -> None:
    if entry.dtype != dtype or len(entry.shape) != dimensions:
        raise AdapterError(
            f"{path}: tensor {entry.name!r} is {entry.dtype} of shape {list(entry.shape)}, expected {dtype} of "
            f"{dimensions} dimension"
        )


def _sum(start: Mapping[str, Tensor]) -> Tensor:
    import torch

    flat = torch.cat([start[name].double().reshape(-1) for name in sorted(start)])
    return flat.square().dot(torch.linspace(1, 2, len(flat), dtype=torch.float64)).reshape(1)
