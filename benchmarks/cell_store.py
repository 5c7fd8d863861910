"""A benchmark's cells: one JSON file with a cell a line, and one npz file of per-unit results.

A cell is one measurement under a name such as `final-medical-houlsby-seed0`. Cells are added one by one, so that an
interrupted benchmark continues with the first that is missing; both files are replaced atomically, under a lock, so
that several processes can write to them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Cells:
    """The cells in `folder`: `cells.json`, and in `units.npz` the arrays `<cell>/<array>`.

    `source` is written into every cell as its `provenance`.
    """

    def __init__(self, folder: Path, source: dict[str, Any] | None = None) -> None:
        self.folder, self.source = folder, source
        self.path, self.units_path = folder / "cells.json", folder / "units.npz"
        self._known: dict[str, dict[str, Any]] = {}
        self._state: tuple[int, int] | None = None

    def has(self, name: str) -> bool:
        """Whether the cell was computed."""
        return name in self._read()

    def load(self, name: str) -> dict[str, Any]:
        """Return one cell. Raises KeyError where it was not computed."""
        return self._read()[name]

    def all(self, stage: str) -> list[dict[str, Any]]:
        """Return the cells whose name starts with `stage` and a hyphen, in the order of their names."""
        return [cell for name, cell in self._read().items() if name.startswith(f"{stage}-")]

    def write(self, name: str, cell: dict[str, Any], units: dict[str, np.ndarray] | None = None) -> None:
        """Add or replace a cell; its units first, so that a cell never lacks them."""
        with self._locked():
            if units:
                every = {key: array for key, array in self._units().items() if not key.startswith(f"{name}/")}
                every |= {f"{name}/{key}": array for key, array in units.items()}
                aside = self.folder / f".{os.getpid()}.npz"
                np.savez_compressed(aside, **dict(sorted(every.items())))  # type: ignore[arg-type]
                os.replace(aside, self.units_path)
            of = {} if self.source is None else {"provenance": self.source}
            self._replace(self._read() | {name: cell | of})

    def remove(self, name: str) -> None:
        """Forget a cell, if it exists."""
        with self._locked():
            self._replace({key: cell for key, cell in self._read().items() if key != name})

    def units(self, name: str) -> dict[str, np.ndarray]:
        """Return a cell's per-unit results."""
        return self._units(f"{name}/")

    def _units(self, prefix: str = "") -> dict[str, np.ndarray]:
        if not self.units_path.exists():
            return {}
        with np.load(self.units_path) as file:
            return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}

    def _read(self) -> dict[str, dict[str, Any]]:
        """Read the file again where another process has replaced it."""
        with contextlib.suppress(FileNotFoundError):
            status = self.path.stat()
            if self._state != (status.st_ino, status.st_mtime_ns):
                self._known = json.loads(self.path.read_text(encoding="utf-8"))
                self._state = (status.st_ino, status.st_mtime_ns)
        return self._known

    def _replace(self, cells: dict[str, dict[str, Any]]) -> None:
        names = sorted(cells, key=lambda name: f"{name}.")  # as files of these names would be sorted
        lines = (f"{json.dumps(name)}: {json.dumps(cells[name])}" for name in names)
        write_text(self.path, "{\n" + ",\n".join(lines) + "\n}\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write aside and rename, so that no reader ever sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
