"""Published adapters laid side by side: what each is, and which of its tensors are compared and averaged how."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.adapters.initial import DOWN, UP, initial_weights
from scions.errors import AdapterError, UsageError
from scions.merging.tensor_sites import compared
from scions.store import Manifest, find_adapter, read_adapter
from scions.store.fingerprint import state_fingerprint

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = (DOWN, UP, ".bottleneck_down.bias", ".bottleneck_up.bias")

# Begins the id of first weights whose units were chosen by pruning: they cannot be drawn again in that order.
UNITS = "units-"


@dataclass(frozen=True)
class Member:
    """One published adapter: ``config`` is PEFT's, ``tensors`` are as its file names them."""

    name: str
    folder: Path
    config: dict[str, Any]
    manifest: Manifest
    tensors: dict[str, Tensor] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """`scions.store.adapter_fingerprint` of the tensors."""
        return state_fingerprint(self.tensors)

    @property
    def is_bottleneck(self) -> bool:
        """Whether it is one of Scions' own methods and not LoRA."""
        return bool(self.config["peft_type"] == "BOTTLENECK")

    @property
    def knows_its_start(self) -> bool:
        """Whether its matrices' first values can be drawn again: not LoRA's, nor where units were taken out."""
        return self.is_bottleneck and not self.manifest.initialisation.id.startswith(UNITS)


def read_member(name_or_path: str | Path, root: Path | None = None) -> Member:
    """Read a published adapter by its name under ``root``, or by its folder.

    Raises:
        AdapterError: there is none, it is damaged, its folder holds a whole model, or its tensors are no bottlenecks
            of its rank.
    """
    folder = find_adapter(name_or_path, root)
    if (folder / "modules.json").is_file():
        raise AdapterError(f"{folder}: holds all weights of a model (method full), and only adapters can be combined")
    config, manifest, tensors = read_adapter(folder)
    member = Member(Path(os.path.abspath(folder)).name, folder, config, manifest, tensors)
    if member.is_bottleneck:
        _check(member)
    return member


def read_members(names: Sequence[str | Path], root: Path | None = None, *, least: int = 2) -> list[Member]:
    """Read several adapters, each once.

    Raises:
        UsageError: fewer than ``least``, or one twice.
        AdapterError: as `read_member`.
    """
    members = [read_member(name, root) for name in names]
    twice = sorted({m.name for m in members if sum(o.folder.resolve() == m.folder.resolve() for o in members) > 1})
    if twice:
        raise UsageError(f"adapter {twice[0]!r} is named twice")
    if len(members) < least:
        raise UsageError(f"at least {least} adapters are needed, found {len(members)}")
    called = [member.name for member in members]
    same = sorted({name for name in called if called.count(name) > 1})
    if same:
        raise UsageError(f"two adapters are called {same[0]!r}; rename one of the folders")
    return members


def first_weights(member: Member) -> dict[str, Tensor]:
    """What the matrices of a bottleneck adapter began with, by name.

    Raises:
        AdapterError: they are not known, because units were taken out of it.
    """
    if not member.knows_its_start:
        raise AdapterError(
            f"{member.name}: units were taken out of it (prune --strategy neurons), so what its values began with "
            "cannot be drawn again; use the adapter that it was pruned from"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in member.tensors.items()}
    return initial_weights(shapes, member.config.get("init_seed", 0))


def updates(member: Member) -> dict[str, Tensor]:
    """How far each compared tensor of a bottleneck went from where all adapters of its base start (biases from 0).

    Raises:
        AdapterError: as `first_weights`.
    """
    start = first_weights(member)
    return {
        name: tensor.float() - start[name] if name in start else tensor.float()
        for name, tensor in compared(member.tensors).items()
    }


def _check(member: Member) -> None:
    """Raise AdapterError where a bottleneck's tensors are not those that its configuration promises."""
    where = f"{member.folder}: adapter_config.json"
    rank, seed = member.config.get("rank"), member.config.get("init_seed", 0)
    if type(rank) is not int or type(seed) is not int:
        raise AdapterError(f"{where}: rank and init_seed: expected whole numbers, found {rank!r} and {seed!r}")
    sites = sorted({name.removesuffix(part) for name in member.tensors for part in _PARTS if name.endswith(part)})
    if not sites:
        raise AdapterError(f"{where}: is a bottleneck's, but none of its {len(member.tensors)} tensors is")
    for site in sites:
        shapes = [tuple(member.tensors[site + p].shape) if site + p in member.tensors else None for p in _PARTS]
        down, up = shapes[0] or (), shapes[1] or ()
        wide = [n for n in (*down[1:], *up[:1]) if n > 0]
        if len(wide) != 2 or shapes != [(rank, wide[0]), (wide[1], rank), (rank,), (wide[1],)]:
            listed = ", ".join(
                f"{part[12:]} {list(s) if s else 'missing'}" for part, s in zip(_PARTS, shapes, strict=True)
            )
            raise AdapterError(
                f"{member.folder}: {site}: its tensors are no bottleneck of rank {rank}: {listed}; expected "
                f"[{rank}, width], [width, {rank}], [{rank}] and [width]"
            )
