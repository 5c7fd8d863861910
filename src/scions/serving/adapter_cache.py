"""Adapter registry with an LRU cache: loaded on first use, evicted when memory is full."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scions.encoder.base_info import Weights
from scions.errors import AdapterError, ScionsError, UsageError
from scions.serving.errors import ApiError, busy, not_found
from scions.store import check_name
from scions.store.names import CONFIG_FILE

_LOADERS = 2
Result = TypeVar("Result")
# Reads a folder and the adapter's name; raises AdapterError where the folder is damaged or belongs to another base.
AdapterReader = Callable[[Path, str], Weights]


@dataclass(eq=False)
class Entry:
    """One version of an adapter. ``version`` is known once it was read.

    ``only_in_memory`` marks weights whose folder holds others by now.
    """

    folder: Path
    added: float
    version: str | None = None
    weights: Weights | None = None
    only_in_memory: bool = False
    loading: Future[Weights] | None = None
    last: Any = None  # weak reference to the weights, which running requests may still hold

    def alive(self) -> Weights | None:
        """Return its weights, also evicted ones that are still in use."""
        return self.weights if self.weights is not None or self.last is None else self.last()


@dataclass(frozen=True)
class Version:
    """One version of an adapter as the API shows it. ``version`` is None until the weights were first read."""

    version: str | None
    folder: str
    loaded: bool
    kept: bool
    created: int


class AdapterCache:
    """Registered adapters by name, each with one or more versions, the newest of which the bare name means.

    Weights are read on first use, outside the lock, and once however many requests wait for them. At most ``memory``
    bytes stay. Rows that are being encoded hold their own reference, so that no eviction or removal disturbs them.
    """

    def __init__(self, root: str | Path, read: AdapterReader, memory: int) -> None:
        self.root = Path(root).expanduser()
        self.memory = memory
        self.hits = self.misses = self.evictions = 0
        self.revision = 0  # changes whenever a name means something else
        self._read = read
        self._lock = threading.RLock()
        self._names: dict[str, list[Entry]] = {}  # versions of a name, the newest last
        self._loaded: OrderedDict[Entry, int] = OrderedDict()  # bytes, the least recently used first
        self._alive: weakref.WeakValueDictionary[int, Weights] = weakref.WeakValueDictionary()
        self._threads = ThreadPoolExecutor(_LOADERS, thread_name_prefix="scions-adapters")

    def scan(self) -> int:
        """Register every folder under the root that holds an adapter and return how many. No weights are read.

        Raises:
            UsageError: the root is no folder.
        """
        try:
            names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        except OSError as error:
            raise UsageError(f"{self.root}: cannot be read as a folder of adapters: {error.strerror}") from error
        for name in names:
            try:
                check_name(name)
                folder = self._folder(name)
            except ScionsError:
                continue
            if (folder / CONFIG_FILE).is_file():
                with self._lock:
                    self._names[name] = [Entry(folder, folder.stat().st_mtime)]
                    self.revision += 1
        return len(self._names)

    def peek(self, name: str, version: str | None = None) -> Weights | None:
        """Return weights that are in memory; None where they have to be read first.

        Raises:
            ApiError: 404, there is no such adapter or version.
        """
        with self._lock:
            entry = self._find(name, version)
            weights = entry.alive()
            if weights is None:
                return None
            if entry.weights is None:
                self._put(entry, weights)
            self.hits += 1
            if entry in self._loaded:
                self._loaded.move_to_end(entry)
            return weights

    async def get(self, name: str, version: str | None = None) -> Weights:
        """Return weights, read in another thread where they are not in memory.

        Raises:
            ApiError: 404, there is no such adapter or version; 409, its folder is damaged, belongs to another base,
                or was changed since it was registered; 429, the weights in use fill the memory twice over.
        """
        weights = self.peek(name, version)
        if weights is not None:
            return weights
        with self._lock:
            entry = self._find(name, version)
            if entry.loading is None:
                self.misses += 1
                entry.loading = self._threads.submit(self._load, name, entry)
            loading = entry.loading
        # Shielded: one client that gives up must not cancel the read for others that wait.
        weights = await asyncio.shield(asyncio.wrap_future(loading))
        if version is not None and weights.version != version:
            raise not_found(name, version)
        return weights

    def add(self, folder: str, name: str | None = None) -> tuple[str, bool]:
        """Register a folder under the root, or read it again; its weights become the newest version.

        Blocks while it reads. Older versions stay: one of another folder on disk, one of the same folder in memory
        where it is loaded.

        Args:
            folder: its name under the root; a path is refused.
            name: the adapter's name; None takes the folder's.

        Returns:
            The version, and whether it is new.

        Raises:
            ApiError: 400, a bad name; 404, no such folder; 409, it is damaged, or older versions fill the memory.
        """
        try:
            path, adapter = self._folder(folder), check_name(name or folder)
        except AdapterError as error:
            raise ApiError(400, str(error), code="bad_name", param="name" if name else "folder") from error
        if not path.is_dir():
            raise ApiError(404, f"{folder}: there is no such folder of adapters", code="no_folder", param="folder")
        weights = self._read_checked(adapter, path)
        with self._lock:
            versions = self._names.get(adapter, [])
            same = [entry for entry in versions if entry.version == weights.version]
            older = [entry for entry in versions if entry not in same and self._survives(entry, path)]
            pinned = {entry for entry in self._loaded if entry.only_in_memory and entry not in versions}
            pinned |= {entry for entry in older if entry.only_in_memory or entry.folder == path}
            if sum(self._loaded[entry] for entry in pinned) + weights.bytes > self.memory:
                example = older[0].version if older else "..."
                raise ApiError(
                    409,
                    f"{adapter}: its older versions are only in memory, and with the new one would take more than the "
                    f"server's {self.memory} bytes; remove some, for example DELETE /v1/adapters/{adapter}@{example}",
                    code="memory_full",
                )
            for entry in versions:
                if entry in older:
                    entry.only_in_memory |= entry.folder == path
                else:
                    self._forget(entry)
            new = Entry(path, time.time(), weights.version)
            self._names[adapter] = [*older, new]
            self.revision += 1
            self._put(new, weights)
        return weights.version, not same

    def remove(self, name: str, version: str | None = None) -> list[str | None]:
        """Forget an adapter, or one version of it; the newest remaining version becomes what the name means.

        Returns:
            The versions that were removed; None stands for one that was never read.

        Raises:
            ApiError: 404, there is no such adapter or version.
        """
        with self._lock:
            versions = self._names.get(name, [])
            removed = [entry for entry in versions if version is None or entry.version == version]
            if not removed:
                raise not_found(name, version)
            for entry in removed:
                self._forget(entry)
            self.revision += 1
            remaining = [entry for entry in versions if entry not in removed]
            if remaining:
                self._names[name] = remaining
            else:
                del self._names[name]
        return [entry.version for entry in removed]

    def names(self) -> list[str]:
        """Return the registered names in order."""
        with self._lock:
            return sorted(self._names)

    def newest(self) -> tuple[int, dict[str, Entry]]:
        """Return the ``revision``, and what each name means in it."""
        with self._lock:
            return self.revision, {name: versions[-1] for name, versions in self._names.items()}

    def holds(self, name: str, version: str) -> bool:
        """Return whether a version that was read before is still registered."""
        with self._lock:
            return any(entry.version == version for entry in self._names.get(name, ()))

    def in_thread(self, work: Callable[[], Result]) -> Future[Result]:
        """Run ``work`` in one of the threads that read adapters."""
        return self._threads.submit(work)

    def versions(self, name: str) -> list[Version]:
        """Return the versions of a name, the newest first.

        Raises:
            ApiError: 404, there is no such adapter.
        """
        with self._lock:
            self._find(name, None)
            return [
                Version(entry.version, entry.folder.name, entry.weights is not None, entry.only_in_memory,
                        int(entry.added))
                for entry in reversed(self._names[name])
            ]  # fmt: skip

    @property
    def loaded_bytes(self) -> int:
        """Bytes of the weights that stay in memory."""
        with self._lock:
            return sum(self._loaded.values())

    @property
    def registered(self) -> int:
        """Number of names."""
        return len(self._names)

    def close(self) -> None:
        """End the threads that read adapters."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _find(self, name: str, version: str | None) -> Entry:
        versions = self._names.get(name)
        if not versions:
            raise not_found(name)
        if version is None:
            return versions[-1]
        for wanted in (version, None):  # an entry that was never read may turn out to be this version
            for entry in versions:
                if entry.version == wanted:
                    return entry
        raise not_found(name, version)

    def _folder(self, name: str) -> Path:
        """Return a folder directly under the root. A link that leads elsewhere is refused like a path."""
        if not name or Path(name).name != name or name.startswith(".") or "\0" in name or "\\" in name:
            raise AdapterError(f"folder {name!r}: expected the name of a folder of adapters, not a path")
        folder = self.root / name
        if folder.resolve().parent != self.root.resolve():
            raise AdapterError(f"folder {name!r} is a link that leads out of the folder of adapters")
        return folder

    def _load(self, name: str, entry: Entry) -> Weights:
        try:
            with self._lock:
                alive = sum(weights.bytes for weights in self._alive.values())
            if alive > 2 * self.memory:  # evicted weights count while running requests hold them
                raise busy("Too many adapters are in use at once", 1)
            weights = self._read_checked(name, entry.folder)
            with self._lock:
                if entry.version is not None and entry.version != weights.version:
                    raise ApiError(
                        409,
                        f"adapter {name!r}: its folder now holds version {weights.version}, not {entry.version}; "
                        f'register the new one with POST /v1/adapters {{"folder": "{entry.folder.name}"}}',
                        code="adapter_changed",
                        param="model",
                    )
                entry.version = weights.version
                if entry in self._names.get(name, ()):  # else it was removed meanwhile
                    self._put(entry, weights)
            return weights
        finally:
            with self._lock:
                entry.loading = None

    def _read_checked(self, name: str, folder: Path) -> Weights:
        try:
            return self._read(folder, name)
        except ScionsError as error:
            problem = str(error).replace(f"{self.root}{os.sep}", "")
            message = f"adapter {name!r} cannot be used: {problem}"
            raise ApiError(409, message, code="adapter_unusable", param="model") from error

    def _put(self, entry: Entry, weights: Weights) -> None:
        entry.weights = weights
        entry.last = weakref.ref(weights)
        self._alive[id(weights)] = weights
        self._loaded[entry] = weights.bytes
        total = sum(self._loaded.values())
        for other in list(self._loaded):
            if total <= self.memory:
                break
            if not other.only_in_memory:
                total -= self._loaded.pop(other)
                other.weights = None
                self.evictions += 1

    def _survives(self, entry: Entry, replaced: Path) -> bool:
        """Return whether a version still exists after the folder ``replaced`` was read again."""
        if entry.folder != replaced or entry.only_in_memory:
            return True
        entry.weights = entry.alive()
        if entry.weights is not None:
            self._loaded[entry] = entry.weights.bytes
        return entry.weights is not None

    def _forget(self, entry: Entry) -> None:
        self._loaded.pop(entry, None)
        entry.weights = None
