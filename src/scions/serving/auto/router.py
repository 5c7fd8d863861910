"""`auto` and `auto-rows`: the bare base's vectors of a request's rows decide which adapters encode it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scions.encoder.base_info import Weights
from scions.routing.decision import AUTO, RoutingDecision, calibration_for, decide, decide_rows
from scions.routing.domains import Domains
from scions.routing.sample import sample_rows
from scions.serving.adapter_cache import AdapterCache
from scions.serving.auto.collection_cache import CachedDecision, CollectionCache
from scions.serving.auto.domain_index import DomainIndex
from scions.serving.errors import ApiError
from scions.serving.http.adapter_choice import Choice
from scions.serving.http.keys import Caller
from scions.serving.metrics import Metrics
from scions.unit_rows import unit_rows

Encode = Callable[..., Awaitable[np.ndarray]]  # (token ids, adapters, strengths, numbers of the rows)
RoutingSample = Mapping[
    int, tuple[Sequence[int], np.ndarray]
]  # by row: its token ids, and the bare base's vector of them


@dataclass(frozen=True)
class Asked:
    """One request of ``rows`` rows; ``ids`` gives the token ids of some of them, as domains' statistics were made."""

    caller: Caller
    auto: str
    collection: str | None
    rows: int
    ids: Callable[[list[int]], Awaitable[list[list[int]]]]
    encode: Encode


@dataclass(frozen=True)
class Routed:
    """The choice of every row, the weights, what the answer says of it, and what the bare base has encoded for it."""

    choices: list[Choice | None]
    weights: dict[Choice, Weights]
    answer: dict[str, Any]
    looked: RoutingSample = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    decisions: list[RoutingDecision]
    weights: dict[str, Weights]
    looked: RoutingSample


class Router:
    """Decides for the requests of one server, each among the adapters that its caller may use.

    Args:
        shelf: the registered adapters.
        index: their domains.
        load: gives the weights of choices; raises ApiError.
        most: different adapters in one request.
        metrics: where decisions are counted.
    """

    def __init__(
        self,
        adapter_cache: AdapterCache,
        index: DomainIndex,
        load: Callable[[list[Choice]], Awaitable[dict[Choice, Weights]]],
        most: int,
        metrics: Metrics,
    ) -> None:
        self.kept = CollectionCache(adapter_cache)
        self._index, self._load, self._most, self._metrics = index, load, most, metrics

    async def route(self, asked: Asked) -> Routed:
        """Decide, or take what was decided for the collection.

        Raises:
            ApiError: the rows cannot be encoded, a chosen adapter cannot be read, or too many were chosen.
        """
        return await (self._whole(asked) if asked.auto == AUTO else self._each(asked))

    def forget(self) -> None:
        """Drop everything that is known of adapters that have left the shelf."""
        self._index.forget()
        self.kept.forget()

    async def _whole(self, asked: Asked) -> Routed:
        looked: RoutingSample = {}

        async def decided() -> CachedDecision:
            nonlocal looked
            rows = sample_rows(asked.rows)
            found = await self._found(asked, rows, lambda v, domains: [decide(v, domains, calibration_for(len(v)))])
            looked, (decision,) = found.looked, found.decisions
            name = decision.adapter
            choice = None if name is None else Choice(name, found.weights[name].version)
            return CachedDecision(choice, decision.confidence, len(looked))

        while True:
            if asked.collection is None:
                made = await decided()
            else:
                made = await self.kept.get((asked.caller.name, asked.collection), decided)
            try:
                weights = {} if made.choice is None else await self._load([made.choice])
            except ApiError as error:
                if error.status == 404:  # removed since: that decision is gone too
                    continue
                raise
            return Routed([made.choice] * asked.rows, weights, {"decision": made.answer()}, looked)

    async def _each(self, asked: Asked) -> Routed:
        found = await self._found(asked, list(range(asked.rows)), decide_rows)
        of = {name: Choice(name, weights.version) for name, weights in found.weights.items()}
        decisions = found.decisions if found.looked else found.decisions * asked.rows
        choices = [None if one.adapter is None else of[one.adapter] for one in decisions]
        answer = {"confidences": [one.confidence for one in decisions]}
        return Routed(choices, {of[name]: weights for name, weights in found.weights.items()}, answer, found.looked)

    async def _found(
        self, asked: Asked, rows: list[int], judge: Callable[[np.ndarray, Domains], list[RoutingDecision]]
    ) -> _Found:
        looked: RoutingSample = {}
        unit: np.ndarray | None = None
        while True:
            domains = await self._index.among(asked.caller)
            if domains is None:
                return _Found([RoutingDecision(None, 1.0)], {}, {})
            if unit is None:
                ids = await asked.ids(rows)
                vectors = await asked.encode(ids, [None] * len(ids), [1.0] * len(ids), rows)
                looked = dict(zip(rows, zip(ids, vectors, strict=True), strict=True))
                unit = unit_rows(vectors)
            decisions = await asyncio.get_running_loop().run_in_executor(None, judge, unit, domains)
            names = list(dict.fromkeys(one.adapter for one in decisions if one.adapter is not None))
            if len(names) > self._most:
                problem = f"its rows go to {len(names)} adapters, at most {self._most} are allowed in one request"
                raise ApiError(413, f"input: {problem}; split it.", code="too_large", param="input")
            try:
                weights = await self._load([Choice(name) for name in names])
            except ApiError as error:
                if error.status == 404:  # removed since: what is left decides
                    continue
                raise
            base = sum(one.adapter is None for one in decisions)
            self._metrics.decided(len(decisions) - base, base)
            return _Found(decisions, {choice.name: one for choice, one in weights.items()}, looked)


async def encoded(
    encode: Encode,
    ids: Sequence[Sequence[int]],
    weights: Sequence[Weights | None],
    strengths: Sequence[float],
    looked: RoutingSample,
) -> np.ndarray:
    """``[rows, dim]``; rows of the bare base whose tokens were ``looked`` at are not encoded again."""
    known = [
        row
        for row, (own, _) in looked.items()
        if (weights[row] is None or strengths[row] == 0) and list(own) == list(ids[row])
    ]
    if not known:
        return await encode(ids, weights, strengths)
    rest = sorted(set(range(len(ids))) - set(known))
    vectors = np.empty((len(ids), len(looked[known[0]][1])), dtype=np.float32)
    vectors[known] = [looked[row][1] for row in known]
    if rest:
        columns = ([values[row] for row in rest] for values in (ids, weights, strengths))
        vectors[rest] = await encode(*columns, rest)
    return vectors
