"""One server's parts, and how a request goes through them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scions.encoder.base_info import BaseInfo, Weights
from scions.serving.adapter_cache import AdapterCache
from scions.serving.auto.domain_index import DomainIndex
from scions.serving.auto.router import Asked, Router, RoutingSample, encoded
from scions.serving.batcher import Batcher
from scions.serving.errors import ApiError, not_found, stopping
from scions.serving.http.adapter_choice import Choice, select
from scions.serving.http.keys import Caller, Keys
from scions.serving.http.requests import DOCUMENT_PROMPTS, EmbeddingsRequest
from scions.serving.http.responses import embeddings_body
from scions.serving.metrics import Metrics
from scions.serving.protocols import RowBatchEncoder
from scions.serving.settings import Settings
from scions.serving.tokenizer import RequestTokenizer
from scions.serving.workers import in_threads, workers_for
from scions.unit_rows import unit_rows

if TYPE_CHECKING:
    import numpy as np


class Service:
    """Encoder, shelf, queue, keys and counts of one server. `start` and `close` it inside its event loop."""

    def __init__(
        self,
        encoder: RowBatchEncoder,
        base_info: BaseInfo,
        adapter_cache: AdapterCache,
        settings: Settings,
        keys: Keys | None = None,
    ) -> None:
        self.encoder, self.base_info, self.adapter_cache, self.settings, self.keys = (
            encoder,
            base_info,
            adapter_cache,
            settings,
            keys,
        )
        self.metrics = Metrics(adapter_cache)
        index = DomainIndex(adapter_cache, base_info.sha256, base_info.dimensions)
        self.router = Router(adapter_cache, index, self._weights, settings.max_adapters, self.metrics)
        self.started = int(time.time())
        self.ready = False
        self._batcher: Batcher | None = None
        self._tokenizer: RequestTokenizer | None = None

    async def start(self) -> None:
        """Start the threads, and encode once, so that the first request is as quick as the next."""
        settings = self.settings
        encode, workers = self.encoder.encode_rows, workers_for(self.encoder)
        self._batcher = Batcher(
            in_threads(encode) if workers == 1 else encode,
            queue_rows=settings.queue_rows,
            batch_tokens=settings.batch_tokens,
            linger=settings.linger,
            workers=workers,
            on_batch=self.metrics.batch,
        )
        self.metrics.queued.set_function(lambda: 0 if self._batcher is None else self._batcher.rows)
        self._tokenizer = RequestTokenizer(self.encoder)
        self._batcher.start()
        with self._batcher.admitted("warm-up", 1) as encode:
            ids, _ = await self._tokenizer.rows(["a"], [""], [self.base_info.max_length])
            await encode(ids, [None], [1.0])
        # What is there now stays: looking through it for garbage held all requests up for a quarter of a second.
        gc.collect()
        gc.freeze()
        self.ready = True

    async def close(self) -> None:
        """Finish what is queued and end the threads."""
        self.ready = False
        if self._batcher is not None:
            await self._batcher.close()
        if self._tokenizer is not None:
            self._tokenizer.close()
        self.adapter_cache.close()

    @property
    def failed(self) -> bool:
        """Whether the part that encodes has broken down."""
        return self._batcher is not None and self._batcher.failed

    def check_open(self) -> None:
        """Raises ApiError, 503, before the server has started and once it is being stopped."""
        if self._batcher is None:
            raise ApiError(503, "The server is starting.", code="starting", headers={"Retry-After": "1"})
        if not self.ready:
            raise stopping()

    async def embed(
        self, caller: Caller, request: EmbeddingsRequest, note: dict[str, Any]
    ) -> tuple[bytes, dict[str, str]]:
        """The body and headers of the answer to a request.

        Args:
            caller: whose share of the queue it uses, and which adapters it may.
            request: what is asked for.
            note: gets what the log says of it.

        Raises:
            ApiError: the request asks for what is not there, not allowed, or too much.
        """
        assert self._batcher is not None
        assert self._tokenizer is not None
        settings, base_info = self.settings, self.base_info
        rows = len(request.input)
        if rows > settings.max_rows:
            raise _too_large(f"input has {rows} rows, at most {settings.max_rows} are allowed; split it")
        dimensions = self._dimensions(request)
        asked = select(request, base_info.id)
        choices, strengths = asked.choices, asked.strengths
        wanted = dict.fromkeys(choice for choice in choices if choice is not None)
        if len(wanted) > settings.max_adapters:
            raise _too_large(f"{len(wanted)} adapters in one request, at most {settings.max_adapters} are allowed")
        for choice in wanted:
            if not caller.may_use(choice.name):
                raise not_found(choice.name)
        with self._batcher.admitted(caller.tenant, rows) as encode:
            looked: RoutingSample = {}
            said: dict[str, Any] = {}
            if asked.auto is None:
                weights = await self._weights(list(wanted))
            else:
                ids_of = partial(self._base_ids, request)
                routed = await self.router.route(Asked(caller, asked.auto, request.collection, rows, ids_of, encode))
                choices, weights, said, looked = routed.choices, routed.weights, routed.answer, routed.looked
            if request.prompt in DOCUMENT_PROMPTS:  # a query-side adapter leaves documents to the base
                choices = [one if one is None or not weights[one].query_side else None for one in choices]
            of_rows = [None if choice is None else weights[choice] for choice in choices]
            ids, cut = await self._token_ids(request, of_rows)
            tokens = sum(map(len, ids))
            note |= {"rows": rows, "tokens": tokens, "adapters": len(weights)}
            self._check_tokens(tokens)
            vectors = await encoded(encode, ids, of_rows, strengths, looked)
        vectors = _finished(vectors, dimensions if request.dimensions else None, strengths)
        self._count(choices, ids, cut)
        origin = {
            "base": base_info.id,
            "dimensions": dimensions,
            "truncated": cut,
            "spaces": self._spaces(choices, strengths, weights, dimensions),
            **said,
        }
        rest = {
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "scions": origin,
        }
        return await embeddings_body(vectors, request.encoding_format or "float", rest), _headers(origin)

    async def add(self, folder: str, name: str | None) -> tuple[str, bool]:
        """`AdapterCache.add` in another thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self.adapter_cache.add, folder, name)
        finally:
            self.router.forget()  # an older version that could not stay

    def remove(self, name: str, version: str | None) -> list[str | None]:
        """`AdapterCache.remove`, and everything else that was known of it."""
        gone = self.adapter_cache.remove(name, version)
        self.router.forget()
        return gone

    def versions(self, name: str) -> list[dict[str, Any]]:
        """The versions of an adapter as an answer shows them."""
        return [vars(version) for version in self.adapter_cache.versions(name)]

    def _dimensions(self, request: EmbeddingsRequest) -> int:
        full = self.base_info.dimensions
        if request.dimensions is not None and request.dimensions > full:
            raise _wrong("dimensions", f"{request.dimensions}, but the base gives {full}")
        return request.dimensions or full

    def _prompts(self, request: EmbeddingsRequest, weights: list[Weights | None]) -> list[str]:
        """The prompt of each row: its adapter's own of that name, else the base's."""
        base = self.base_info.prompts
        name = request.prompt or self.base_info.default_prompt
        if name is None:
            return [""] * len(weights)
        found = [base.get(name) if one is None else one.prompts.get(name, base.get(name)) for one in weights]
        if request.prompt is not None and None in found:
            have = ", ".join(map(repr, base)) or "none"
            row = found.index(None)
            raise _wrong("prompt", f"there is none of that name for row {row}; the base has {have}")
        return [text or "" for text in found]

    async def _weights(self, wanted: list[Choice]) -> dict[Choice, Weights]:
        found: dict[Choice, Weights] = {}
        cold: list[Choice] = []
        for choice in wanted:
            weights = self.adapter_cache.peek(choice.name, choice.version)
            if weights is None:
                cold.append(choice)
            else:
                found[choice] = weights
        if cold:
            read = await asyncio.gather(*(self.adapter_cache.get(choice.name, choice.version) for choice in cold))
            found.update(zip(cold, read, strict=True))
        return found

    async def _token_ids(
        self, request: EmbeddingsRequest, weights: list[Weights | None]
    ) -> tuple[list[list[int]], int]:
        texts = request.texts
        if texts is None:
            return self._given_ids(request), 0
        limits = [self.base_info.limit(one) for one in weights]
        return await self._tokenized(texts, self._prompts(request, weights), limits, range(len(texts)))

    async def _base_ids(self, request: EmbeddingsRequest, rows: list[int]) -> list[list[int]]:
        """Of some rows, as training made the statistics of domains: no prompt, and the base's own length."""
        texts = request.texts
        if texts is None:
            given = self._given_ids(request)
            ids = [given[row] for row in rows]
        else:
            some = [texts[row] for row in rows]
            ids, _ = await self._tokenized(some, [""] * len(rows), [self.base_info.max_length] * len(rows), rows)
        self._check_tokens(sum(map(len, ids)))
        return ids

    async def _tokenized(
        self, texts: list[str], prompts: list[str], limits: list[int], numbers: Sequence[int]
    ) -> tuple[list[list[int]], int]:
        assert self._tokenizer is not None
        found, cut = await self._tokenizer.rows(texts, prompts, limits)
        if not all(found):
            raise _wrong("input", "has no tokens", numbers[found.index([])])
        return found, cut

    def _check_tokens(self, tokens: int) -> None:
        most = self.settings.max_tokens
        if tokens > most:
            raise _too_large(f"input has {tokens} tokens, at most {most} are allowed; split it")

    def _given_ids(self, request: EmbeddingsRequest) -> list[list[int]]:
        base_info, ids = self.base_info, request.token_ids
        if request.prompt is not None:
            raise _wrong("prompt", "input is token ids already")
        for row, tokens in enumerate(ids):
            if len(tokens) > base_info.max_length:
                problem = f"{len(tokens)} token ids, the base reads at most {base_info.max_length}"
                raise _wrong("input", problem, row)
            if max(tokens) >= base_info.vocabulary:
                problem = f"token id {max(tokens)}, the base's tokenizer has ids below {base_info.vocabulary}"
                raise _wrong("input", f"{problem}; send texts, or ids of that tokenizer", row)
        return ids

    def _spaces(
        self,
        choices: list[Choice | None],
        strengths: list[float],
        weights: dict[Choice, Weights],
        dimensions: int,
    ) -> list[dict[str, Any]]:
        spaces: dict[tuple[Choice | None, float], dict[str, Any]] = {}
        for row, (choice, strength) in enumerate(zip(choices, strengths, strict=True)):
            factor = 1.0 if choice is None else strength + 0.0  # the base has no strength
            space = spaces.get((choice, factor))
            if space is None:
                own = None if choice is None else weights[choice]
                space = spaces[choice, factor] = {
                    "space": self.base_info.space(own, factor, dimensions),
                    "adapter": choice.name if choice else None,
                    "version": own.version if own else None,
                    "strength": factor,
                    "rows": [],
                }
            space["rows"].append(row)
        return list(spaces.values())

    def _count(self, choices: list[Choice | None], ids: list[list[int]], cut: int) -> None:
        sums: dict[str | None, list[int]] = {}
        for choice, tokens in zip(choices, ids, strict=True):
            entry = sums.setdefault(choice.name if choice else None, [0, 0])
            entry[0] += 1
            entry[1] += len(tokens)
        for name, (rows, count) in sums.items():
            self.metrics.encoded(name, rows, count)
        self.metrics.truncated(cut)


def _finished(vectors: np.ndarray, cut: int | None, strengths: list[float]) -> np.ndarray:
    """Vectors ``[rows, dim]`` cut to ``cut`` numbers and scaled to length 1; as they are where it is None."""
    import numpy as np

    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ApiError(
            422,
            f"input[{row}]: its vector has numbers that are not finite, at strength {strengths[row]:g}.",
            code="not_finite",
            param="strength",
        )
    if cut is None:
        return vectors
    scaled: np.ndarray = unit_rows(vectors[:, :cut]).astype(np.float32)
    return scaled


def _headers(origin: dict[str, Any]) -> dict[str, str]:
    """The same for the eye, where all rows lie in one space."""
    headers = {"X-Scions-Base": quote(origin["base"], safe="/:.-_ ")}
    if len(origin["spaces"]) == 1:
        space = origin["spaces"][0]
        headers["X-Scions-Space"] = space["space"]
        if space["adapter"] is not None:
            headers |= {"X-Scions-Adapter": space["adapter"], "X-Scions-Version": space["version"]}
    return headers


def _too_large(message: str) -> ApiError:
    return ApiError(413, f"{message}.", code="too_large", param="input")


def _wrong(field: str, problem: str, row: int | None = None) -> ApiError:
    where = field if row is None else f"{field}[{row}]"
    return ApiError(400, f"{where}: {problem}.", code="invalid_body", param=field)
