"""The adapters of an encoder by name: changed by some threads while others compute with them."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from scions.engine.adapter_weights import AdapterWeights
from scions.errors import AdapterError
from scions.routing.domains import Domains


class AdapterBank:
    """Name to `AdapterWeights`.

    What a snapshot holds never changes: every change makes a new mapping. So who took a snapshot finishes on the
    weights it took, and no reader ever waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._adapters: Mapping[str, AdapterWeights] = {}
        self._domains: tuple[Domains | None] | None = None

    def snapshot(self) -> Mapping[str, AdapterWeights]:
        """The adapters at this moment, read-only."""
        return MappingProxyType(self._adapters)  # type: ignore[arg-type]

    def domains(self, dimensions: int) -> tuple[Mapping[str, AdapterWeights], Domains | None]:
        """A snapshot, and the training domains of the adapters in it that can be chosen by them; None where none can.

        They are put together once after each change, which drops what was: a deleted adapter is remembered nowhere.
        ``dimensions`` are those of the base's vectors.
        """
        with self._lock:
            if self._domains is None:
                known = {name: weights.domain for name, weights in self._adapters.items()}
                self._domains = (Domains.of_routable(known, dimensions),)
            return self.snapshot(), self._domains[0]

    def load(self, weights: AdapterWeights) -> None:
        """Add an adapter under its name.

        Raises:
            AdapterError: the name is taken.
        """
        with self._lock:
            held = self._adapters.get(weights.name)
            if held is not None:
                raise AdapterError(
                    f"an adapter {weights.name!r} is loaded already (version {held.version}); "
                    "pass replace=True to put another in its place, or choose another name"
                )
            self._set({**self._adapters, weights.name: weights})

    def replace(self, weights: AdapterWeights) -> AdapterWeights | None:
        """Put an adapter under its name, in place of one that may be there; returns that one."""
        with self._lock:
            held = self._adapters.get(weights.name)
            self._set({**self._adapters, weights.name: weights})
        return held

    def delete(self, name: str) -> AdapterWeights:
        """Take an adapter out; returns it.

        Raises:
            AdapterError: there is none of that name; lists those there are.
        """
        with self._lock:
            held = find(self._adapters, name)
            self._set({key: value for key, value in self._adapters.items() if key != name})
        return held

    def change_all(self, change: Callable[[AdapterWeights], AdapterWeights]) -> None:
        """Put ``change(weights)`` in the place of every adapter, in one step."""
        with self._lock:
            self._set({name: change(weights) for name, weights in self._adapters.items()})

    def _set(self, adapters: Mapping[str, AdapterWeights]) -> None:
        self._adapters, self._domains = adapters, None

    def __getstate__(self) -> dict[str, Any]:
        return {"_adapters": self._adapters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.__dict__.update(state)


def find(adapters: Mapping[str, AdapterWeights], name: str) -> AdapterWeights:
    """The adapter of that name. Raises AdapterError where there is none, with close names and all there are."""
    held = adapters.get(name)
    if held is not None:
        return held
    close = difflib.get_close_matches(str(name), adapters, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    have = f"Loaded: {', '.join(sorted(adapters))}." if adapters else "None is loaded: load_adapter() loads one."
    raise AdapterError(f"no adapter {name!r} is loaded.{meant} {have}")
