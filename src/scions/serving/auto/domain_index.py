"""Index of the training domains of all registered adapters, read from their manifests."""

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
from scions.store import Manifest


@dataclass(frozen=True)
class _Domain:
    mean: np.ndarray  # [dimensions], float32
    variance: float


@dataclass(frozen=True)
class _Table:
    """All domains at one revision of the adapters, None where there are none, and the variance of each."""

    revision: int
    domains: Domains | None
    variances: np.ndarray


class DomainIndex:
    """Domains of the newest version of every name, as one matrix.

    Manifests are read when the first request needs them, each once, in the threads that read adapters; weights are not.
    Adapters that texts cannot be routed to are no candidates; the log counts them in one line.
    """

    def __init__(self, adapter_cache: AdapterCache, base_sha256: str, dimensions: int) -> None:
        self._adapters, self._base, self._dimensions = adapter_cache, base_sha256, dimensions
        # Each lives as long as the entry of the adapter cache.
        self.known: weakref.WeakKeyDictionary[Entry, _Domain | None] = weakref.WeakKeyDictionary()
        self._table: _Table | None = None
        self._reading: asyncio.Future[None] | None = None

    async def domains_for(self, caller: Caller) -> Domains | None:
        """Return the domains of the adapters that a caller may use; None where there are none."""
        while (table := self._table) is None or table.revision != self._adapters.revision:
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._read())
            # Shielded: one client that gives up must not cancel the read for others that wait.
            await asyncio.shield(self._reading)
        domains = table.domains
        if domains is None or caller.adapters is None:
            return domains
        rows = [row for row, name in enumerate(domains.names) if caller.may_use(name)]
        if not rows:
            return None
        names = tuple(domains.names[row] for row in rows)
        return Domains(names, domains.means[rows], float(table.variances[rows].mean()))

    def forget(self) -> None:
        """Drop the domains of adapters that are no longer registered."""
        if self._table is not None and self._table.revision != self._adapters.revision:
            self._table = None

    async def _read(self) -> None:
        try:
            revision, newest = self._adapters.newest()
            table = await asyncio.wrap_future(self._adapters.in_thread(lambda: self._build(revision, newest)))
            if revision == self._adapters.revision:  # else one of them may be gone
                self._table = table
        finally:
            self._reading = None

    def _build(self, revision: int, newest: dict[str, Entry]) -> _Table:
        problems: dict[str, str] = {}
        for name, entry in newest.items():
            if entry not in self.known:
                domain = self._domain(entry)
                self.known[entry] = domain if isinstance(domain, _Domain) else None
                if isinstance(domain, str):
                    problems[name] = domain
        if problems:
            log("not_candidates_of_auto", reasons=dict(Counter(problems.values())), such_as=list(problems)[:5])
        pairs = ((name, self.known[entry]) for name, entry in newest.items())
        domains = {name: domain for name, domain in pairs if domain is not None}
        variances = np.array([domain.variance for domain in domains.values()])
        if not domains:
            return _Table(revision, None, variances)
        means = np.stack([domain.mean for domain in domains.values()])
        return _Table(revision, Domains(tuple(domains), means, float(variances.mean())), variances)

    def _domain(self, entry: Entry) -> _Domain | str:
        """Return an adapter's domain, or why texts cannot be routed to it."""
        weights = entry.weights
        if weights is not None:  # the folder may hold a newer version by now
            statistics, problem = weights.domain, unusable(weights.domain, self._dimensions)
        else:
            try:
                manifest = Manifest.read(entry.folder)
            except ScionsError:
                return "unreadable scions.json"
            statistics, problem = manifest.domain, unroutable(manifest, self._base, self._dimensions)
        if statistics is None or problem is not None:
            return problem or "no domain statistics"
        return _Domain(np.array(statistics.mean, dtype=np.float32), statistics.spherical_variance)
