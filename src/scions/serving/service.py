"""Handle embeddings requests: limits, routing, tokens, batches, response."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from scions.encoder.base_info import DOCUMENT_PROMPTS, BaseInfo, Weights, document_adapter, rows_by_key
from scions.serving.adapter_cache import AdapterCache
from scions.serving.auto.domain_index import DomainIndex
from scions.serving.auto.router import Routed, Router, RoutingRequest, encode_rest
from scions.serving.batcher import Batcher
from scions.serving.errors import ApiError, invalid, not_found, stopping, too_large, unavailable
from scions.serving.http.adapter_choice import Choice, select
from scions.serving.http.keys import Caller, Keys
from scions.serving.http.requests import EmbeddingsRequest
from scions.serving.http.responses import embeddings_body, origin_headers
from scions.serving.metrics import Metrics
from scions.serving.settings import Settings
from scions.serving.tokenizer import RequestTokenizer
from scions.serving.workers import RowBatchEncoder, limit_threads, workers_for
from scions.unit_rows import unit_rows


class Service:
    """Encoder, adapters, queue, keys and metrics of one server. `start` and `close` it inside its event loop.

    Args:
        encoder: encodes the rows.
        base_info: its description.
        adapter_cache: the registered adapters.
        settings: the limits.
        keys: the API keys; None serves this machine only.
    """

    def __init__(
        self,
        encoder: RowBatchEncoder,
        base_info: BaseInfo,
        adapter_cache: AdapterCache,
        settings: Settings,
        keys: Keys | None = None,
    ) -> None:
        self.base_info, self.adapter_cache, self.settings, self.keys = base_info, adapter_cache, settings, keys
        self.metrics = Metrics(adapter_cache)
        self.tokenizer = RequestTokenizer(encoder, base_info, settings.max_tokens)
        encode, workers = encoder.encode_rows, workers_for(encoder)
        self.batcher = Batcher(
            limit_threads(encode) if workers == 1 else encode,
            queue_rows=settings.queue_rows,
            batch_tokens=settings.batch_tokens,
            linger=settings.linger,
            workers=workers,
            on_batch=self.metrics.batch,
        )
        self.metrics.queued.set_function(lambda: self.batcher.rows)
        index = DomainIndex(adapter_cache, base_info.sha256, base_info.dimensions)
        self.router = Router(adapter_cache, index, self.load, settings.max_adapters, self.metrics)
        self.created = int(time.time())
        self.ready = self._started = False

    async def start(self) -> None:
        """Start the threads, and encode once, so that the first request is as quick as the next."""
        self.batcher.start()
        with self.batcher.admitted("warm-up", 1) as encode:
            ids, _ = await self.tokenizer.tokenize(["a"], [""], [self.base_info.max_length])
            await encode(ids, [None], [1.0])
        # All objects of now stay: collecting garbage among them stopped all requests for a quarter of a second.
        gc.collect()
        gc.freeze()
        self.ready = self._started = True

    async def close(self) -> None:
        """Finish what is queued and end the threads."""
        self.ready = False
        await self.batcher.close()
        self.tokenizer.close()
        self.adapter_cache.close()

    def check_open(self) -> None:
        """Raise ApiError, 503, before the server has started and once it is being stopped."""
        if not self._started:
            raise unavailable("The server is starting.", "starting", 1)
        if not self.ready:
            raise stopping()

    async def embed(
        self, caller: Caller, request: EmbeddingsRequest, log_fields: dict[str, Any]
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and headers of the response to a request; ``log_fields`` receives fields for the log line.

        Raises:
            ApiError: the request needs something that does not exist, is not allowed, or is too much.
        """
        settings, base_info = self.settings, self.base_info
        rows = len(request.input)
        if rows > settings.max_rows:
            raise too_large(f"input has {rows} rows, at most {settings.max_rows} are allowed")
        dimensions = request.dimensions or base_info.dimensions
        if dimensions > base_info.dimensions:
            raise invalid("dimensions", f"{dimensions}, but the base gives {base_info.dimensions}")
        selection = select(request, base_info.id)
        strengths = selection.strengths
        named = dict.fromkeys(choice for choice in selection.choices if choice is not None)
        if len(named) > settings.max_adapters:
            raise too_large(f"{len(named)} adapters in one request, at most {settings.max_adapters} are allowed")
        for choice in named:
            if not caller.may_use(choice.name):
                raise not_found(choice.name)
        with self.batcher.admitted(caller.client, rows) as encode:
            if selection.auto is None:
                routed = Routed(selection.choices, await self.load(list(named)))
            else:
                base_ids = partial(self.tokenizer.base_rows, request)
                routed = await self.router.route(
                    RoutingRequest(caller, selection.auto, request.collection, rows, base_ids, encode)
                )
            choices, weights = routed.choices, routed.weights
            adapters = [None if choice is None else weights[choice] for choice in choices]
            if request.prompt in DOCUMENT_PROMPTS:
                adapters = [document_adapter(adapter) for adapter in adapters]
                choices = [
                    None if adapter is None else choice for choice, adapter in zip(choices, adapters, strict=True)
                ]
            ids, cut = await self.tokenizer.rows(request, adapters)
            tokens = sum(map(len, ids))
            log_fields |= {"rows": rows, "tokens": tokens, "adapters": len(weights)}
            self.tokenizer.check_total(tokens)
            vectors = await encode_rest(encode, ids, adapters, strengths, routed.sample)
        vectors = _finish(vectors, dimensions if request.dimensions else None, strengths)
        self._count(choices, ids, cut)
        origin = {
            "base": base_info.id,
            "dimensions": dimensions,
            "truncated": cut,
            "spaces": self._spaces(choices, adapters, strengths, dimensions),
            **routed.response,
        }
        rest = {
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "scions": origin,
        }
        return await embeddings_body(vectors, request.encoding_format or "float", rest), origin_headers(origin)

    async def load(self, choices: Sequence[Choice]) -> dict[Choice, Weights]:
        """Return the weights of adapters, those that are not in memory read at the same time.

        Raises:
            ApiError: as `AdapterCache.get`.
        """
        cached = ((choice, self.adapter_cache.peek(choice.name, choice.version)) for choice in choices)
        weights = {choice: adapter for choice, adapter in cached if adapter is not None}
        cold = [choice for choice in choices if choice not in weights]
        read = await asyncio.gather(*(self.adapter_cache.get(choice.name, choice.version) for choice in cold))
        return weights | dict(zip(cold, read, strict=True))

    async def add(self, folder: str, name: str | None) -> tuple[str, bool]:
        """Add an adapter in another thread, see `AdapterCache.add`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self.adapter_cache.add, folder, name)
        finally:
            self.router.forget()  # an older version that could not stay

    def remove(self, name: str, version: str | None) -> list[str | None]:
        """Remove an adapter or a version, see `AdapterCache.remove`, and all that was derived from it."""
        removed = self.adapter_cache.remove(name, version)
        self.router.forget()
        return removed

    def _spaces(
        self,
        choices: Sequence[Choice | None],
        adapters: Sequence[Weights | None],
        strengths: Sequence[float],
        dimensions: int,
    ) -> list[dict[str, Any]]:
        # The base alone has no strength, and -0.0 is 0.0.
        pairs = zip(choices, strengths, strict=True)
        keys = ((choice, 1.0 if choice is None else strength + 0.0) for choice, strength in pairs)
        spaces = []
        for (choice, strength), rows in rows_by_key(keys).items():
            adapter = adapters[rows[0]]
            space = {
                "space": self.base_info.space(adapter, strength, dimensions),
                "adapter": None if choice is None else choice.name,
                "version": None if adapter is None else adapter.version,
                "strength": strength,
                "rows": rows,
            }
            spaces.append(space)
        return spaces

    def _count(self, choices: Sequence[Choice | None], ids: Sequence[Sequence[int]], cut: int) -> None:
        for name, rows in rows_by_key(None if choice is None else choice.name for choice in choices).items():
            self.metrics.encoded(name, len(rows), sum(len(ids[row]) for row in rows))
        self.metrics.truncated(cut)


def _finish(vectors: np.ndarray, dimensions: int | None, strengths: Sequence[float]) -> np.ndarray:
    """Return vectors ``[rows, dim]`` cut to ``dimensions`` and scaled to length 1; None leaves them as they are."""
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        message = f"input[{row}]: its vector has numbers that are not finite, at strength {strengths[row]:g}."
        raise ApiError(422, message, code="not_finite", param="strength")
    return vectors if dimensions is None else unit_rows(vectors[:, :dimensions])
