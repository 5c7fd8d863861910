"""LRU cache of routing decisions by collection, so that all its vectors and queries lie in one space."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from scions.serving.adapter_cache import AdapterCache
from scions.serving.http.adapter_choice import Choice

MAX_COLLECTIONS = 10_000
Key = tuple[str, str]  # name of the caller, name of the collection


@dataclass(frozen=True)
class CachedDecision:
    """``choice`` is an adapter in one version, or None for the base; ``texts`` is how many it was decided by."""

    choice: Choice | None
    confidence: float
    texts: int

    def response(self) -> dict[str, Any]:
        """Return the fields of `scions.serving.http.responses.Decision`."""
        name, version = (None, None) if self.choice is None else (self.choice.name, self.choice.version)
        return {"adapter": name, "version": version, "confidence": self.confidence, "texts": self.texts}


class CollectionCache:
    """Decisions by collection, in memory, for one event loop. A decision ends with the registration of its adapter."""

    def __init__(self, adapter_cache: AdapterCache, limit: int = MAX_COLLECTIONS) -> None:
        self._adapters, self._limit = adapter_cache, limit
        self._decisions: OrderedDict[Key, CachedDecision] = OrderedDict()  # the least recently used first
        self._pending: dict[Key, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._decisions)

    async def get(self, key: Key, decide: Callable[[], Awaitable[CachedDecision]]) -> CachedDecision:
        """Return the decision of a collection, by ``decide`` where there is none; other requests wait for that.

        An error of ``decide`` fails its own request alone, and the next request decides.
        """
        while True:
            decision = self._decisions.get(key)
            if decision is not None and self._registered(decision.choice):
                self._decisions.move_to_end(key)
                return decision
            pending = self._pending.get(key)
            if pending is not None:
                await asyncio.wait([pending])
                continue
            done = self._pending[key] = asyncio.get_running_loop().create_future()
            try:
                decision = await decide()
            finally:
                del self._pending[key]
                done.set_result(None)
            if self._registered(decision.choice):  # else it was removed meanwhile
                self._decisions[key] = decision
                if len(self._decisions) > self._limit:
                    self._decisions.popitem(last=False)

    def forget(self) -> None:
        """Drop the decisions whose adapter, or that version of it, is no longer registered."""
        choices = {decision.choice for decision in self._decisions.values()}
        removed = {choice for choice in choices if not self._registered(choice)}
        for key in [key for key, decision in self._decisions.items() if decision.choice in removed]:
            del self._decisions[key]

    def _registered(self, choice: Choice | None) -> bool:
        return choice is None or choice.version is None or self._adapters.holds(choice.name, choice.version)
