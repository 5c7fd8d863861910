"""Rows of different requests encoded together: a bounded queue, fair between clients, a batch for each worker."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scions.errors import ScionsError
from scions.serving.errors import ApiError, busy, stopping
from scions.serving.workers import worker_threads

if TYPE_CHECKING:
    import numpy as np

_SHARE = 256  # tokens that are worth a batch of their own while another worker is idle
Encode = Callable[[list[Any], list[Any], list[float]], "np.ndarray"]


@dataclass(eq=False)
class _Job:
    """The rows of one request; ``next`` is the first that has not gone into a batch, ``left`` the tokens from there.

    ``numbers``: what the rows are called in the request, where they are only some of it.
    """

    ids: Sequence[Sequence[int]]
    adapters: Sequence[Any]
    strengths: Sequence[float]
    done: asyncio.Future[np.ndarray]
    queued: float
    vectors: Any = None
    next: int = 0
    left: int = 0
    missing: int = 0
    numbers: Sequence[int] | None = None


@dataclass(eq=False)
class _Tenant:
    """A client. ``served`` counts tokens: who has been served least comes next."""

    rows: int = 0  # admitted and not answered
    served: float = 0.0
    jobs: deque[_Job] = field(default_factory=deque)


@dataclass(frozen=True)
class BatchReport:
    """What one batch held: rows, tokens, its share of a full batch, and the seconds that its jobs had waited."""

    rows: int
    tokens: int
    fill: float
    waited: list[float]


class Batcher:
    """Queues rows and encodes them in threads, so that the event loop stays free.

    A batch takes from the client that has been served the fewest tokens, then from the next (start-time fair queueing:
    a client that comes back after a pause starts level with the others, not with its old credit). A turn is one
    request, or half a batch of a larger one: were requests mixed row by row, all would be answered at the same moment,
    and then nothing be queued until their clients have sent the next. A batch that is not full waits a moment, and
    only while requests are known to be on their way.

    Args:
        encode: ``(token ids, adapters, strengths) -> [rows, dim]``; runs in threads of its own.
        queue_rows: rows of all clients together that may wait or be encoded.
        batch_tokens: tokens of a batch; one row may be longer.
        linger: longest wait for more rows, in seconds.
        workers: batches that are encoded at the same time.
        on_batch: called with what each batch held.
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
        self._encode = encode
        self._limit, self._budget, self._linger = queue_rows, batch_tokens, linger
        self._turn = max(1, batch_tokens // 2)
        self._on_batch = on_batch
        self._tenants: dict[str, _Tenant] = {}
        self._rows = 0  # admitted and not answered
        self._queued_tokens = 0
        self._arriving = 0  # requests admitted whose rows are not queued yet
        self._clock = 0.0
        self._rate = 100.0  # rows a second, lately
        self._filled, self._arrived = asyncio.Event(), asyncio.Event()
        self._threads, self._idle = worker_threads(workers), workers
        self._count, self._workers = workers, list[asyncio.Task[None]]()
        self._closing = False

    @property
    def rows(self) -> int:
        """Rows that wait or are being encoded."""
        return self._rows

    @property
    def failed(self) -> bool:
        """Whether a worker has ended though nobody closed it: a fault, after which rows would not be answered."""
        return not self._closing and any(worker.done() for worker in self._workers)

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work()) for _ in range(self._count)]

    async def close(self) -> None:
        """Take nothing new, finish what is queued, and end."""
        self._closing = True
        while self._rows and self._workers and not any(worker.done() for worker in self._workers):
            await asyncio.sleep(0.01)
        for worker in self._workers:
            worker.cancel()
        self._threads.shutdown(wait=True)

    @contextmanager
    def admitted(self, client: str, rows: int) -> Iterator[Callable[..., Any]]:
        """Make room for so many rows; gives the function that queues and awaits them, all or some of them at a time.

        What it raises is the engine's error of one of these rows, a ScionsError as ApiError 422 with the row's number.

        The room a client may take is what the queue has left: one client alone can fill half of it, two a third each,
        so that there is always some for the next.

        Raises:
            ApiError: 429, the client's share of the queue is full; 503, the server is being stopped.
        """
        if self._closing:
            raise stopping()
        tenant = self._tenants.get(client) or _Tenant()
        if tenant.rows + rows > self._limit - self._rows:
            seconds = min(60, max(1, math.ceil(tenant.rows / self._rate)))
            raise busy(f"{tenant.rows} rows of yours are waiting and the queue is full; try again shortly.", seconds)
        self._tenants[client] = tenant
        tenant.rows += rows
        self._rows += rows
        self._arriving += 1
        arrived = False

        def arrive() -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                self._arriving -= 1
                self._arrived.set()

        async def encode(
            ids: Sequence[Sequence[int]],
            adapters: Sequence[Any],
            strengths: Sequence[float],
            numbers: Sequence[int] | None = None,
        ) -> np.ndarray:
            queued = self._queue(tenant, ids, adapters, strengths, numbers)
            arrive()
            return await queued

        try:
            yield encode
        finally:
            arrive()
            tenant.rows -= rows
            self._rows -= rows
            if not tenant.rows:
                self._tenants.pop(client, None)

    async def _queue(
        self,
        tenant: _Tenant,
        ids: Sequence[Sequence[int]],
        adapters: Sequence[Any],
        strengths: Sequence[float],
        numbers: Sequence[int] | None,
    ) -> np.ndarray:
        done: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        tokens = sum(map(len, ids))
        job = _Job(ids, adapters, strengths, done, time.perf_counter(), None, 0, tokens, len(ids), numbers)
        if not tenant.jobs:
            tenant.served = max(tenant.served, self._clock)
        tenant.jobs.append(job)
        self._queued_tokens += tokens
        self._filled.set()
        try:
            return await done
        finally:
            # Where the client has gone, what is left of it need not be encoded.
            self._queued_tokens -= job.left
            job.next, job.left = len(ids), 0

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._filled.wait()
            await self._gather(loop.time() + self._linger)
            # Workers with nothing to do share what there is: what is queued is encoded the sooner.
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
        """Encode the rows of one batch."""
        started = time.perf_counter()
        waited = [started - job.queued for job, at in rows if at == 0]
        if await self._encoded(rows):
            rate = self._count * len(rows) / max(time.perf_counter() - started, 1e-6)
            self._rate += 0.1 * (rate - self._rate)
        if self._on_batch is not None:
            tokens = sum(len(job.ids[at]) for job, at in rows)
            self._on_batch(BatchReport(len(rows), tokens, min(1.0, tokens / self._budget), waited))

    async def _gather(self, deadline: float) -> None:
        """Wait while a batch is not full and more is on its way, up to a moment of the loop's clock."""
        clock = asyncio.get_running_loop().time
        while self._queued_tokens < self._budget and self._arriving and (left := deadline - clock()) > 0:
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _take(self, most: int) -> list[tuple[_Job, int]]:
        """The rows of the next batch as (job, row), ``most`` tokens, or one longer row."""
        waiting = [
            (tenant.served, number, tenant) for number, tenant in enumerate(self._tenants.values()) if tenant.jobs
        ]
        heapq.heapify(waiting)
        taken: list[tuple[_Job, int]] = []
        tokens = 0
        while waiting:
            _, number, tenant = waiting[0]
            while tenant.jobs and tenant.jobs[0].next >= len(tenant.jobs[0].ids):
                tenant.jobs.popleft()
            if not tenant.jobs:
                heapq.heappop(waiting)
                continue
            job = tenant.jobs[0]
            if taken and most - tokens < job.left <= self._turn:
                break  # it goes whole, with the next batch
            cost, end = self._part(job, most - tokens, not taken)
            if end == job.next:
                break
            taken += [(job, at) for at in range(job.next, end)]
            job.next = end
            job.left -= cost
            tokens += cost
            self._clock = max(self._clock, tenant.served)
            tenant.served += cost
            heapq.heapreplace(waiting, (tenant.served, number, tenant))
        self._queued_tokens -= tokens
        return taken

    def _part(self, job: _Job, room: int, first: bool) -> tuple[int, int]:
        """Tokens and end of a job's next turn in so much room; a batch's ``first`` row may be longer."""
        cost, end = 0, job.next
        while end < len(job.ids):
            more = cost + len(job.ids[end])
            if more > min(room, self._turn) and not (first and end == job.next):
                break
            cost, end = more, end + 1
        return cost, end

    async def _encoded(self, rows: list[tuple[_Job, int]]) -> bool:
        """Encode rows and hand their vectors out; False where that failed.

        Rows that fail together are halved until those at fault are alone, and only their requests fail.
        """
        rows = [(job, at) for job, at in rows if not job.done.done()]
        if not rows:
            return True
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, *_columns(rows))
        except Exception as error:
            if len(rows) == 1:
                _fail(*rows[0], error)
            else:
                rows.sort(key=lambda row: id(row[0]))  # a request's rows together: the rest of a failed one is skipped
                middle = len(rows) // 2
                await self._encoded(rows[:middle])
                await self._encoded(rows[middle:])
            return False
        _hand_out(rows, vectors)
        return True


def _columns(rows: list[tuple[_Job, int]]) -> tuple[list[Any], list[Any], list[float]]:
    return (
        [job.ids[at] for job, at in rows],
        [job.adapters[at] for job, at in rows],
        [job.strengths[at] for job, at in rows],
    )


def _hand_out(rows: list[tuple[_Job, int]], vectors: np.ndarray) -> None:
    for (job, at), vector in zip(rows, vectors, strict=True):
        if job.vectors is None:
            import numpy as np

            job.vectors = np.empty((len(job.ids), vectors.shape[1]), dtype=np.float32)
        job.vectors[at] = vector
        job.missing -= 1
        if not job.missing and not job.done.done():
            job.done.set_result(job.vectors)


def _fail(job: _Job, row: int, error: Exception) -> None:
    """Fail a request for its ``row``, which failed alone: what the engine calls row 1 is that row."""
    if isinstance(error, ScionsError):
        problem = str(error).removeprefix("row 1").lstrip(": ")
        number = row if job.numbers is None else job.numbers[row]
        error = ApiError(422, f"input[{number}]: {problem}", code="not_encoded", param="input")
    if not job.done.done():
        job.done.set_exception(error)
