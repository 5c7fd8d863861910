"""What was decided for a collection stays decided, so that all its vectors, and its queries, lie in one space."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from scions.serving.adapter_cache import AdapterCache
from scions.serving.http.adapter_choice import Choice

KEPT = 10_000  # collections; the least recently used one is decided anew when it comes again
Key = tuple[str, str]  # who asks, and what the collection is called


@dataclass(frozen=True)
class CachedDecision:
    """``choice`` is an adapter in one version, or None for the base; ``texts`` is how many it was decided by."""

    choice: Choice | None
    confidence: float
    texts: int

    def answer(self) -> dict[str, Any]:
        """As `scions.serving.http.responses.RoutingDecision`."""
        name, version = (None, None) if self.choice is None else (self.choice.name, self.choice.version)
        return {"adapter": name, "version": version, "confidence": self.confidence, "texts": self.texts}


class CollectionCache:
    """Decisions by collection, in memory. For one event loop. One whose adapter has left the shelf is none."""

    def __init__(self, adapter_cache: AdapterCache, most: int = KEPT) -> None:
        self._shelf, self._most = adapter_cache, most
        self._kept: OrderedDict[Key, CachedDecision] = OrderedDict()
        self._pending: dict[Key, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: Key, decide: Callable[[], Awaitable[CachedDecision]]) -> CachedDecision:
        """The decision of a collection, by ``decide`` where there is none yet; others wait for one that is under way.

        Where it fails, it fails for its own request alone, and the next one decides.
        """
        while True:
            kept = self._kept.get(key)
            if kept is not None and self._there(kept.choice):
                self._kept.move_to_end(key)
                return kept
            pending = self._pending.get(key)
            if pending is not None:
                await asyncio.wait([pending])
                continue
            done = self._pending[key] = asyncio.get_running_loop().create_future()
            try:
                decided = await decide()
            finally:
                del self._pending[key]
                done.set_result(None)
            if self._there(decided.choice):  # its adapter may have been removed meanwhile
                self._kept[key] = decided
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)

    def forget(self) -> None:
        """Drop the decisions whose adapter, or that version of it, is no longer on the shelf."""
        gone = {choice for choice in {kept.choice for kept in self._kept.values()} if not self._there(choice)}
        for key in [key for key, kept in self._kept.items() if kept.choice in gone]:
            del self._kept[key]

    def _there(self, choice: Choice | None) -> bool:
        return choice is None or choice.version is None or self._shelf.holds(choice.name, choice.version)
