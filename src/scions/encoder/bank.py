"""Hold the adapters of an encoder by name; threads may change them while others compute with them."""

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
    """A mapping of names to `AdapterWeights` that is replaced, never changed.

    A call that took a snapshot finishes with the weights in it, and no reader ever waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._adapters: Mapping[str, AdapterWeights] = {}
        self._domains: tuple[Domains | None] | None = None

    def snapshot(self) -> Mapping[str, AdapterWeights]:
        """Return the adapters at this moment, read-only."""
        return MappingProxyType(self._adapters)  # type: ignore[arg-type]

    def domains(self, dimensions: int) -> tuple[Mapping[str, AdapterWeights], Domains | None]:
        """Return a snapshot, and the training domains of the adapters in it that texts can be routed to, if any.

        The domains are built once after each change. ``dimensions`` are those of the base's vectors.
        """
        with self._lock:
            if self._domains is None:
                domains = {name: weights.domain for name, weights in self._adapters.items()}
                self._domains = (Domains.of_routable(domains, dimensions),)
            return self.snapshot(), self._domains[0]

    def load(self, weights: AdapterWeights, replace: bool = False) -> None:
        """Add an adapter under its name.

        Raises:
            AdapterError: the name is taken, and ``replace`` is false.
        """
        with self._lock:
            previous = self._adapters.get(weights.name)
            if previous is not None and not replace:
                raise AdapterError(
                    f"an adapter {weights.name!r} is loaded already (version {previous.version}); "
                    "pass `replace=True` to put another in its place, or choose another name"
                )
            self._set({**self._adapters, weights.name: weights})

    def delete(self, name: str) -> AdapterWeights:
        """Remove an adapter and return it.

        Raises:
            AdapterError: there is none of that name; lists those that are loaded.
        """
        with self._lock:
            weights = find(self._adapters, name)
            self._set({key: value for key, value in self._adapters.items() if key != name})
        return weights

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
    """Return the adapter of that name. Raises AdapterError where there is none, with close names and all names."""
    weights = adapters.get(name)
    if weights is not None:
        return weights
    close = difflib.get_close_matches(str(name), adapters, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    have = f"Loaded: {', '.join(sorted(adapters))}." if adapters else "None is loaded: load_adapter() loads one."
    raise AdapterError(f"no adapter {name!r} is loaded.{meant} {have}")
