"""The training domains of all registered adapters, from their manifests: what `auto` chooses among."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from dataclasses import dataclass

import numpy as np

from scions.errors import ScionsError
from scions.routing.domains import Domains, unroutable, unusable
from scions.serving.adapter_cache import AdapterCache, Entry
from scions.serving.http.keys import Caller
from scions.serving.logs import log
from scions.store import DomainStatistics, Manifest


@dataclass(frozen=True)
class _Domain:
    mean: np.ndarray  # [dimensions], float32
    variance: float


@dataclass(frozen=True)
class _Table:
    """Of one revision of the shelf; ``whole`` holds all domains (None: there are none), ``variances`` theirs."""

    revision: int
    whole: Domains | None
    variances: np.ndarray


class DomainIndex:
    """Domains of the newest version of every name, as one matrix.

    Manifests are read when the first request needs them, each once, in the shelf's threads; weights are not. What
    cannot be read, is of another base, or has no statistics of as many dimensions is no candidate: one line of the log
    counts those.

    Args:
        shelf: the registered adapters.
        base_sha256: of the base's weights.
        dimensions: of its vectors.
    """

    def __init__(self, adapter_cache: AdapterCache, base_sha256: str, dimensions: int) -> None:
        self._shelf, self._base, self._dimensions = adapter_cache, base_sha256, dimensions
        # By the shelf's own entry, and only for as long as that lives.
        self._known: weakref.WeakKeyDictionary[Entry, _Domain | None] = weakref.WeakKeyDictionary()
        self._table: _Table | None = None
        self._reading: asyncio.Future[None] | None = None

    async def among(self, caller: Caller) -> Domains | None:
        """The domains of the adapters that a caller may use; None where there are none."""
        while (table := self._table) is None or table.revision != self._shelf.revision:
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._read())
            # Shielded: who gives up must not take the table away from the others that wait.
            await asyncio.shield(self._reading)
        if table.whole is None or caller.adapters is None:
            return table.whole
        names = table.whole.names
        rows = [row for row, name in enumerate(names) if caller.may_use(name)]
        if not rows:
            return None
        variance = float(table.variances[rows].mean())
        return Domains(tuple(names[row] for row in rows), table.whole.means[rows], variance)

    def forget(self) -> None:
        """Drop what is no longer on the shelf."""
        if self._table is not None and self._table.revision != self._shelf.revision:
            self._table = None

    async def _read(self) -> None:
        try:
            revision, newest = self._shelf.newest()
            table = await asyncio.wrap_future(self._shelf.in_thread(lambda: self._build(revision, newest)))
            if revision == self._shelf.revision:  # else one of them may be gone
                self._table = table
        finally:
            self._reading = None

    def _build(self, revision: int, newest: dict[str, Entry]) -> _Table:
        unfit: dict[str, str] = {}
        for name, entry in newest.items():
            if entry not in self._known:
                found = self._domain(entry)
                self._known[entry] = found if isinstance(found, _Domain) else None
                if isinstance(found, str):
                    unfit[name] = found
        if unfit:
            log("not_candidates_of_auto", reasons=dict(Counter(unfit.values())), such_as=list(unfit)[:5])
        pairs = ((name, self._known[entry]) for name, entry in newest.items())
        domains = {name: domain for name, domain in pairs if domain is not None}
        variances = np.array([domain.variance for domain in domains.values()])
        if not domains:
            return _Table(revision, None, variances)
        means = np.stack([domain.mean for domain in domains.values()])
        return _Table(revision, Domains(tuple(domains), means, float(variances.mean())), variances)

    def _domain(self, entry: Entry) -> _Domain | str:
        """An adapter's domain, or why it can be no candidate."""
        weights = entry.weights
        # Where they are in memory, the folder may hold a newer version by now.
        found: DomainStatistics | None
        if weights is not None:
            found, problem = weights.domain, unusable(weights.domain, self._dimensions)
        else:
            try:
                manifest = Manifest.read(entry.folder)
            except ScionsError:
                return "unreadable scions.json"
            found, problem = manifest.domain, unroutable(manifest, self._base, self._dimensions)
        if found is None or problem is not None:
            return problem or "no domain statistics"
        return _Domain(np.array(found.mean, dtype=np.float32), found.spherical_variance)
