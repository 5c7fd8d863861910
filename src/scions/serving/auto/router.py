"""Decide which adapters encode the rows of a request, by the bare base's vectors of its texts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scions.encoder.base_info import Weights
from scions.routing.decision import AUTO, RoutingDecision, calibration_for, decide, decide_rows
from scions.routing.domains import Domains
from scions.routing.sample import RoutingSample, sample_rows
from scions.serving.adapter_cache import AdapterCache
from scions.serving.auto.collection_cache import CachedDecision, CollectionCache
from scions.serving.auto.domain_index import DomainIndex
from scions.serving.errors import ApiError, too_large
from scions.serving.http.adapter_choice import Choice
from scions.serving.http.keys import Caller
from scions.serving.metrics import Metrics

Encode = Callable[..., Awaitable[np.ndarray]]  # (token ids, adapters, strengths, numbers of the rows)
Sample = RoutingSample[np.ndarray]


@dataclass(frozen=True)
class RoutingRequest:
    """One request of ``rows`` rows; ``base_ids`` gives token ids of some of them, as domain statistics are made of."""

    caller: Caller
    auto: str
    collection: str | None
    rows: int
    base_ids: Callable[[list[int]], Awaitable[list[list[int]]]]
    encode: Encode


@dataclass(frozen=True)
class Routed:
    """The choice of every row, the weights, the fields for the response, and the base vectors of a decision."""

    choices: list[Choice | None]
    weights: dict[Choice, Weights]
    response: dict[str, Any] = field(default_factory=dict)
    sample: Sample | None = None


class Router:
    """Route the requests of one server, each among the adapters that its caller may use.

    Args:
        adapter_cache: the registered adapters.
        index: their domains.
        load: returns the weights of choices; raises ApiError.
        max_adapters: different adapters in one request.
        metrics: counts the decisions.
    """

    def __init__(
        self,
        adapter_cache: AdapterCache,
        index: DomainIndex,
        load: Callable[[list[Choice]], Awaitable[dict[Choice, Weights]]],
        max_adapters: int,
        metrics: Metrics,
    ) -> None:
        self.collections = CollectionCache(adapter_cache)
        self.index = index
        self._load, self._max_adapters, self._metrics = load, max_adapters, metrics

    async def route(self, request: RoutingRequest) -> Routed:
        """Decide, or follow the decision of the collection.

        Raises:
            ApiError: the rows cannot be encoded, a chosen adapter cannot be read, or too many were chosen.
        """
        return await (self._route_whole(request) if request.auto == AUTO else self._route_rows(request))

    def forget(self) -> None:
        """Drop everything about adapters that are no longer registered."""
        self.index.forget()
        self.collections.forget()

    async def _route_whole(self, request: RoutingRequest) -> Routed:
        sample: Sample | None = None

        async def decide_whole() -> CachedDecision:
            nonlocal sample
            (decision,), weights, sample = await self._decide(
                request,
                sample_rows(request.rows),
                lambda unit, domains: [decide(unit, domains, calibration_for(len(unit)))],
            )
            texts = 0 if sample is None else len(sample.rows)
            return CachedDecision(next(iter(weights), None), decision.confidence, texts)

        while True:
            if request.collection is None:
                decision = await decide_whole()
            else:
                decision = await self.collections.get((request.caller.name, request.collection), decide_whole)
            try:
                weights = {} if decision.choice is None else await self._load([decision.choice])
            except ApiError as error:
                if error.status == 404:  # removed meanwhile, and the decision with it
                    continue
                raise
            return Routed([decision.choice] * request.rows, weights, {"decision": decision.response()}, sample)

    async def _route_rows(self, request: RoutingRequest) -> Routed:
        decisions, weights, sample = await self._decide(request, list(range(request.rows)), decide_rows)
        if sample is None:
            decisions = decisions * request.rows
        by_name: dict[str | None, Choice] = {choice.name: choice for choice in weights}
        response = {"confidences": [decision.confidence for decision in decisions]}
        return Routed([by_name.get(decision.adapter) for decision in decisions], weights, response, sample)

    async def _decide(
        self,
        request: RoutingRequest,
        rows: list[int],
        judge: Callable[[np.ndarray, Domains], list[RoutingDecision]],
    ) -> tuple[list[RoutingDecision], dict[Choice, Weights], Sample | None]:
        """Return decisions, weights of the chosen versions, and the sample; none where there was nothing to choose."""
        sample: Sample | None = None
        while True:
            domains = await self.index.domains_for(request.caller)
            if domains is None:
                return [RoutingDecision(None, 1.0)], {}, None
            if sample is None:
                ids = await request.base_ids(rows)
                vectors = await request.encode(ids, [None] * len(ids), [1.0] * len(ids), rows)
                sample = RoutingSample(rows, ids, vectors)
            decisions = await asyncio.get_running_loop().run_in_executor(None, judge, sample.unit(), domains)
            names = list(dict.fromkeys(decision.adapter for decision in decisions if decision.adapter is not None))
            if len(names) > self._max_adapters:
                limit = f"at most {self._max_adapters} are allowed in one request"
                raise too_large(f"input: its rows go to {len(names)} adapters, {limit}")
            try:
                newest = await self._load([Choice(name) for name in names])
            except ApiError as error:
                if error.status == 404:  # removed meanwhile: decide among the remaining ones
                    continue
                raise
            base = sum(decision.adapter is None for decision in decisions)
            self._metrics.decided(len(decisions) - base, base)
            weights = {Choice(choice.name, adapter.version): adapter for choice, adapter in newest.items()}
            return decisions, weights, sample


async def encode_rest(
    encode: Encode,
    ids: Sequence[Sequence[int]],
    adapters: Sequence[Weights | None],
    strengths: Sequence[float],
    sample: Sample | None,
) -> np.ndarray:
    """Return vectors ``[rows, dim]``; rows of the bare base that the sample holds are not encoded again.

    Args:
        encode: encodes rows.
        ids: token ids of each row.
        adapters: of each row, None for the base.
        strengths: of each row.
        sample: base vectors of a routing decision; None where there are none.
    """
    bare = [adapter is None or strength == 0 for adapter, strength in zip(adapters, strengths, strict=True)]
    known = [] if sample is None else sample.reusable(ids, bare)
    if sample is None or not known:
        return await encode(ids, adapters, strengths)
    rest = sorted(set(range(len(ids))) - set(known))
    sampled = sample.of(known)
    vectors = np.empty((len(ids), sampled.shape[1]), dtype=np.float32)
    vectors[known] = sampled
    if rest:
        columns = ([values[row] for row in rest] for values in (ids, adapters, strengths))
        vectors[rest] = await encode(*columns, rest)
    return vectors
