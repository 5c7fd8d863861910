"""Encode rows of different requests together: a bounded queue, fair between clients, a batch for each worker."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scions.errors import ScionsError
from scions.serving.errors import ApiError, busy, stopping
from scions.serving.workers import worker_threads

_SHARE = 256  # tokens that are worth their own batch while another worker is idle
Encode = Callable[[list[Any], list[Any], list[float]], np.ndarray]


@dataclass(eq=False)
class _Job:
    """The rows of one request, or some of them; ``numbers`` are then their places in the request."""

    ids: Sequence[Sequence[int]]
    adapters: Sequence[Any]
    strengths: Sequence[float]
    numbers: Sequence[int] | None
    done: asyncio.Future[np.ndarray]
    queued: float  # time of queueing, of `time.perf_counter`
    tokens: int  # of the rows from `next` on
    missing: int  # rows without a vector
    next: int = 0  # the first row that is in no batch yet
    vectors: Any = None

    def store(self, row: int, vector: np.ndarray) -> None:
        """Store the vector of a row; with the last one the request has its answer."""
        if self.vectors is None:
            self.vectors = np.empty((len(self.ids), len(vector)), dtype=np.float32)
        self.vectors[row] = vector
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(self.vectors)

    def fail(self, row: int, error: Exception) -> None:
        """Fail the request for ``row``, which was encoded alone: what the engine calls row 1 is that row."""
        if isinstance(error, ScionsError):
            problem = str(error).removeprefix("row 1").lstrip(": ")
            number = row if self.numbers is None else self.numbers[row]
            error = ApiError(422, f"input[{number}]: {problem}", code="not_encoded", param="input")
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False)
class _Client:
    """``served`` counts tokens: the client that was served the fewest comes next."""

    rows: int = 0  # admitted and not answered
    served: float = 0.0
    jobs: deque[_Job] = field(default_factory=deque)


@dataclass(frozen=True)
class BatchReport:
    """One batch: its rows and tokens, its share of a full batch, and the seconds that its requests had waited."""

    rows: int
    tokens: int
    fill: float
    waited: list[float]


class Batcher:
    """Queue rows and encode them in threads, so that the event loop stays free.

    A batch takes rows of the client that was served the fewest tokens, then of the next (start-time fair queueing: a
    client that returns after a pause starts level with the others). It takes a request whole, or half a batch of a
    larger one. Mixed row by row, all requests would be answered at the same moment and the queue be empty until their
    clients have sent the next. A batch that is not full waits a moment, and only while requests are on their way.

    Args:
        encode: ``(token ids, adapters, strengths) -> [rows, dim]``; runs in its own threads.
        queue_rows: rows of all clients together that may wait or be encoded.
        batch_tokens: tokens of a batch; one row may be longer.
        linger: longest wait for more rows, in seconds.
        workers: batches that are encoded at the same time.
        on_batch: receives a report of each batch.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        queue_rows: int,
        batch_tokens: int,
        linger: float,
        workers: int = 1,
        on_batch: Callable[[BatchReport], None] | None = None,
    ) -> None:
        self.rows = 0  # that wait or are being encoded
        self.arriving = 0  # requests admitted whose rows are not queued yet
        self._encode = encode
        self._limit, self._budget, self._linger = queue_rows, batch_tokens, linger
        self._on_batch = on_batch
        self._clients: dict[str, _Client] = {}
        self._queued_tokens = 0
        self._clock = 0.0
        self._rate = 100.0  # rows a second, lately
        self._filled, self._arrived = asyncio.Event(), asyncio.Event()
        self._count = self._idle = workers
        self._threads: ThreadPoolExecutor | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._closing = False

    @property
    def failed(self) -> bool:
        """Whether a worker has ended by a fault, after which rows would not be answered."""
        return not self._closing and any(worker.done() for worker in self._workers)

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._threads = worker_threads(self._count)
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work()) for _ in range(self._count)]

    async def close(self) -> None:
        """Take nothing new, finish what is queued, and end."""
        self._closing = True
        while self.rows and self._workers and not any(worker.done() for worker in self._workers):
            await asyncio.sleep(0.01)
        for worker in self._workers:
            worker.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    @contextmanager
    def admitted(self, client: str, rows: int) -> Iterator[Callable[..., Any]]:
        """Reserve places in the queue; yields the function that encodes the rows, all or some of them at a time.

        That function raises the engine's error of one of these rows, a ScionsError as ApiError 422 with the row's
        number.

        A client may take as many places as the queue has left: one client alone can fill half of it, two a third each,
        so that a newcomer always finds some.

        Raises:
            ApiError: 429, the client's share of the queue is full; 503, the server is being stopped.
        """
        if self._closing:
            raise stopping()
        state = self._clients.get(client) or _Client()
        if state.rows + rows > self._limit - self.rows:
            seconds = min(60, max(1, math.ceil(state.rows / self._rate)))
            raise busy(f"{state.rows} rows of yours are waiting and the queue is full", seconds)
        self._clients[client] = state
        state.rows += rows
        self.rows += rows
        self.arriving += 1
        arrived = False

        def arrive() -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                self.arriving -= 1
                self._arrived.set()

        async def encode(
            ids: Sequence[Sequence[int]],
            adapters: Sequence[Any],
            strengths: Sequence[float],
            numbers: Sequence[int] | None = None,
        ) -> np.ndarray:
            done: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
            job = _Job(
                ids, adapters, strengths, numbers, done, time.perf_counter(), tokens=sum(map(len, ids)),
                missing=len(ids),
            )  # fmt: skip
            self._queue(state, job)
            arrive()
            try:
                return await done
            finally:
                # Where the client has gone, the rows that are left need not be encoded.
                self._queued_tokens -= job.tokens
                job.next, job.tokens = len(ids), 0

        try:
            yield encode
        finally:
            arrive()
            state.rows -= rows
            self.rows -= rows
            if not state.rows:
                self._clients.pop(client, None)

    def _queue(self, client: _Client, job: _Job) -> None:
        if not client.jobs:
            client.served = max(client.served, self._clock)
        client.jobs.append(job)
        self._queued_tokens += job.tokens
        self._filled.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._filled.wait()
            await self._gather(loop.time() + self._linger)
            # Idle workers share what is queued, so that it is encoded sooner.
            share = max(_SHARE, math.ceil(self._queued_tokens / self._idle))
            rows = self._take(min(self._budget, share))
            if not rows:
                self._filled.clear()
                continue
            self._idle -= 1
            try:
                await self._batch(rows)
            finally:
                self._idle += 1

    async def _batch(self, rows: list[tuple[_Job, int]]) -> None:
        started = time.perf_counter()
        waited = [started - job.queued for job, row in rows if row == 0]
        if await self._encoded(rows):
            rate = self._count * len(rows) / max(time.perf_counter() - started, 1e-6)
            self._rate += 0.1 * (rate - self._rate)
        if self._on_batch is not None:
            tokens = sum(len(job.ids[row]) for job, row in rows)
            self._on_batch(BatchReport(len(rows), tokens, min(1.0, tokens / self._budget), waited))

    async def _gather(self, deadline: float) -> None:
        """Wait, up to a time of the loop's clock, while a batch is not full and requests are on their way."""
        clock = asyncio.get_running_loop().time
        while self._queued_tokens < self._budget and self.arriving and (left := deadline - clock()) > 0:
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _take(self, limit: int) -> list[tuple[_Job, int]]:
        """Take the rows of the next batch as (job, row): ``limit`` tokens, or one longer row."""
        waiting = [
            (client.served, number, client) for number, client in enumerate(self._clients.values()) if client.jobs
        ]
        heapq.heapify(waiting)
        taken: list[tuple[_Job, int]] = []
        tokens = 0
        whole = max(1, self._budget // 2)  # a request of so many tokens is not divided
        while waiting:
            _, number, client = waiting[0]
            while client.jobs and client.jobs[0].next >= len(client.jobs[0].ids):
                client.jobs.popleft()
            if not client.jobs:
                heapq.heappop(waiting)
                continue
            job = client.jobs[0]
            room = limit - tokens
            if taken and room < job.tokens <= whole:
                break  # it goes whole, with the next batch
            cost, end = _part(job, min(room, whole), not taken)
            if end == job.next:
                break
            taken += [(job, row) for row in range(job.next, end)]
            job.next = end
            job.tokens -= cost
            tokens += cost
            self._clock = max(self._clock, client.served)
            client.served += cost
            heapq.heapreplace(waiting, (client.served, number, client))
        self._queued_tokens -= tokens
        return taken

    async def _encoded(self, rows: list[tuple[_Job, int]]) -> bool:
        """Encode rows and store their vectors; False where that failed.

        Rows that fail together are halved until those at fault are alone, and only their requests fail.
        """
        rows = [(job, row) for job, row in rows if not job.done.done()]
        if not rows:
            return True
        columns = (
            [job.ids[row] for job, row in rows],
            [job.adapters[row] for job, row in rows],
            [job.strengths[row] for job, row in rows],
        )
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, *columns)
        except Exception as error:
            if len(rows) == 1:
                job, row = rows[0]
                job.fail(row, error)
            else:
                rows.sort(key=lambda row: id(row[0]))  # a request's rows together: the rest of a failed one is skipped
                middle = len(rows) // 2
                await self._encoded(rows[:middle])
                await self._encoded(rows[middle:])
            return False
        for (job, row), vector in zip(rows, vectors, strict=True):
            job.store(row, vector)
        return True


def _part(job: _Job, room: int, first: bool) -> tuple[int, int]:
    """Return the tokens and the end of the rows of a job that fit; a batch's ``first`` row may be longer."""
    cost, end = 0, job.next
    while end < len(job.ids):
        more = cost + len(job.ids[end])
        if more > room and not (first and end == job.next):
            break
        cost, end = more, end + 1
    return cost, end
