"""Read published adapters to be compared, averaged or pruned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from scions.adapters.initial import DOWN, UP, initial_weights
from scions.errors import AdapterError, UsageError
from scions.merging.tensor_sites import compared
from scions.store import find_adapter, read_adapter
from scions.store.names import CONFIG_FILE, MODULES_FILE
from scions.store.registry import PublishedAdapter

_PARTS = (DOWN, UP, ".bottleneck_down.bias", ".bottleneck_up.bias")

# Prefix of the id of first weights of an adapter whose units were pruned: they cannot be drawn again in that order.
UNITS = "units-"


class StoredAdapter(PublishedAdapter):
    """A published adapter with what mixing asks of it."""

    @property
    def is_bottleneck(self) -> bool:
        """Whether its method is one of Scions' own, and not LoRA."""
        return bool(self.config["peft_type"] == "BOTTLENECK")

    @property
    def has_first_weights(self) -> bool:
        """Whether the first values of its matrices can be drawn again: not LoRA's, nor after units were pruned."""
        return self.is_bottleneck and not self.manifest.initialisation.id.startswith(UNITS)

    def first_weights(self) -> dict[str, Tensor]:
        """Return the first values of a bottleneck adapter's matrices, by name.

        Raises:
            AdapterError: they cannot be drawn again, because units were pruned from it.
        """
        if not self.has_first_weights:
            raise AdapterError(
                f"{self.name}: units were taken out of it (strategy 'neurons' of prune), so its first weights cannot "
                "be drawn again; use the adapter that it was pruned from"
            )
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        return initial_weights(shapes, self.config.get("init_seed", 0))

    def updates(self) -> dict[str, Tensor]:
        """Return what training changed of each compared tensor of a bottleneck (of biases, from 0).

        Raises:
            AdapterError: as `first_weights`.
        """
        start = self.first_weights()
        return {
            name: tensor.float() - start[name] if name in start else tensor.float()
            for name, tensor in compared(self.tensors).items()
        }


def read_stored(name_or_path: str | Path, adapters: Path | None = None) -> StoredAdapter:
    """Read a published adapter by its name in the ``adapters`` folder, or by its own folder.

    Raises:
        AdapterError: there is none, it is damaged, its folder holds a whole model, or its tensors do not match its
            rank.
    """
    folder = find_adapter(name_or_path, adapters)
    if (folder / MODULES_FILE).is_file():
        raise AdapterError(f"{folder}: holds all weights of a model (method full), and only adapters can be combined")
    adapter = StoredAdapter(Path(os.path.abspath(folder)).name, folder, *read_adapter(folder))
    if adapter.is_bottleneck:
        _check(adapter)
    return adapter


def read_several(names: Sequence[str | Path], adapters: Path | None = None, *, minimum: int = 2) -> list[StoredAdapter]:
    """Read several different adapters.

    Raises:
        UsageError: fewer than ``minimum``, one twice, or two of one name.
        AdapterError: as `read_stored`.
    """
    several = [read_stored(name, adapters) for name in names]
    folders = [adapter.folder.resolve() for adapter in several]
    repeated = sorted({a.name for a, folder in zip(several, folders, strict=True) if folders.count(folder) > 1})
    if repeated:
        raise UsageError(f"adapter {repeated[0]!r} is named twice")
    if len(several) < minimum:
        raise UsageError(f"at least {minimum} adapters are needed, found {len(several)}")
    labels = [adapter.name for adapter in several]
    same = sorted({name for name in labels if labels.count(name) > 1})
    if same:
        raise UsageError(f"two adapters have the name {same[0]!r}; rename one of the folders")
    return several


def _check(adapter: StoredAdapter) -> None:
    """Raise AdapterError where a bottleneck's tensors do not match its configuration."""
    where = f"{adapter.folder}: {CONFIG_FILE}"
    rank, seed = adapter.config.get("rank"), adapter.config.get("init_seed", 0)
    if type(rank) is not int or type(seed) is not int:
        raise AdapterError(f"{where}: rank and init_seed: expected whole numbers, found {rank!r} and {seed!r}")
    sites = sorted({name.removesuffix(part) for name in adapter.tensors for part in _PARTS if name.endswith(part)})
    if not sites:
        raise AdapterError(f"{where}: is a bottleneck's, but none of its {len(adapter.tensors)} tensors is")
    for site in sites:
        shapes = [tuple(adapter.tensors[site + p].shape) if site + p in adapter.tensors else None for p in _PARTS]
        down, up = shapes[0] or (), shapes[1] or ()
        widths = [n for n in (*down[1:], *up[:1]) if n > 0]
        if len(widths) != 2 or shapes != [(rank, widths[0]), (widths[1], rank), (rank,), (widths[1],)]:
            listed = ", ".join(
                f"{part[12:]} {list(s) if s else 'missing'}" for part, s in zip(_PARTS, shapes, strict=True)
            )
            raise AdapterError(
                f"{adapter.folder}: {site}: its tensors are no bottleneck of rank {rank}: {listed}; expected "
                f"[{rank}, width], [width, {rank}], [{rank}] and [width]"
            )
