"""Batches across requests: full, fair, bounded, with errors for the request at fault alone."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import numpy as np
import pytest

from scions.serving.batcher import Batcher
from scions.serving.errors import ApiError

URL = "/v1/embeddings"


class _Engine:
    """Gives back each row's first id; keeps the batches; waits while closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, ids, adapters, strengths):
        time.sleep(0.001)
        self.batches.append([row[0] for row in ids])
        if -1 in self.batches[-1]:
            raise RuntimeError("poison")
        return np.array([[row[0]] for row in ids], dtype=np.float32)


def _play(steps, engine=None, **limits):
    engine = engine or _Engine()

    async def run():
        batcher = Batcher(engine, **({"queue_rows": 1000, "batch_tokens": 8, "linger": 0.0} | limits))
        try:
            return await asyncio.wait_for(steps(batcher, engine), 10)
        finally:
            await batcher.close()

    return asyncio.run(run())


async def _send(batcher, client, rows, length=1):
    with batcher.admitted(client, len(rows)) as encode:
        vectors = await encode([[row] * length for row in rows], [None] * len(rows), [1.0] * len(rows))
    return vectors[:, 0].tolist()


async def _queued(batcher, *requests):
    """Send everything before the work begins, so that the order is that of the queue."""
    sent = [asyncio.ensure_future(_send(batcher, *request)) for request in requests]
    await asyncio.sleep(0)
    batcher.start()
    return await asyncio.gather(*sent)


def test_rows_of_different_clients_share_a_batch_and_return_to_them():
    async def steps(batcher, engine):
        answers = await _queued(batcher, ("a", [1, 2, 3]), ("b", [4]), ("c", [5, 6]))
        return answers, engine.batches

    answers, batches = _play(steps)
    assert answers == [[1, 2, 3], [4], [5, 6]]
    assert sorted(batches[0]) == [1, 2, 3, 4, 5, 6]
    assert len(batches) == 1


def test_a_batch_ends_at_its_tokens_but_takes_a_row_that_is_longer_alone():
    async def steps(batcher, engine):
        await _queued(batcher, ("a", [1, 2, 3], 4), ("a", [9], 20))
        return engine.batches

    assert _play(steps) == [[1, 2], [3], [9]]


def test_a_request_goes_whole_where_it_is_half_a_batch_at_most():
    async def steps(batcher, engine):
        await _queued(batcher, ("a", [1] * 3), ("b", [2] * 3), ("c", [3] * 3), ("d", [4] * 3))
        return engine.batches

    assert _play(steps) == [[1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]]


def test_workers_encode_at_the_same_time_and_share_what_there_is():
    together = threading.Barrier(2)

    class Meeting(_Engine):
        def __call__(self, ids, adapters, strengths):
            together.wait(5)  # breaks where the other worker has nothing to do
            return super().__call__(ids, adapters, strengths)

    async def steps(batcher, engine):
        batcher.start()
        answers = await asyncio.gather(_send(batcher, "a", [1, 2], 200), _send(batcher, "b", [3], 400))
        answers += [await _send(batcher, "one", [4, 5], 256)]
        return answers, batcher.failed, sorted(map(sorted, engine.batches))

    result = _play(steps, Meeting(), batch_tokens=2048, workers=2)
    assert result == ([[1, 2], [3], [4, 5]], False, [[1, 2], [3], [4], [5]])


def test_a_small_client_does_not_wait_behind_a_large_one():
    async def steps(batcher, engine):
        await _queued(batcher, ("large", list(range(100, 164))), ("small", [1, 2, 3]))
        return engine.batches

    batches = _play(steps)
    assert {1, 2, 3} <= set(batches[0])
    assert len(batches[0]) == 8


def test_shares_go_by_tokens_not_by_rows():
    async def steps(batcher, engine):
        await _queued(batcher, ("long", [1] * 20, 4), ("short", [2] * 80, 1))
        return engine.batches

    batches = _play(steps, batch_tokens=16)
    for batch in batches[:4]:
        assert batch.count(1) * 4 == batch.count(2) * 1 == 8


def test_a_client_that_returns_gets_no_credit_for_the_pause():
    async def steps(batcher, engine):
        batcher.start()
        busy = asyncio.ensure_future(_send(batcher, "busy", [1] * 400))
        await _send(batcher, "other", [2])
        while len(engine.batches) < 10:
            await asyncio.sleep(0.001)
        late = asyncio.ensure_future(_send(batcher, "other", [3] * 100))
        await asyncio.gather(busy, late)
        return engine.batches

    first = next(batch for batch in _play(steps) if batch.count(3) > 1)
    assert first.count(1) >= 3


def test_a_full_queue_refuses_with_retry_after():
    async def steps(batcher, engine):
        with batcher.admitted("a", 50):
            with pytest.raises(ApiError) as refused, batcher.admitted("a", 1):
                pass
            with batcher.admitted("b", 25):  # another client still has a place
                pass
        with batcher.admitted("a", 50):  # the places are free again
            pass
        return refused.value, batcher.rows

    error, rows = _play(steps, queue_rows=100)
    assert error.status == 429
    assert 1 <= int(error.headers["Retry-After"]) <= 60
    assert rows == 0


def test_only_the_request_at_fault_fails():
    async def steps(batcher, engine):
        sent = [
            asyncio.ensure_future(_send(batcher, name, rows)) for name, rows in (("a", [1]), ("b", [-1]), ("c", [3]))
        ]
        await asyncio.sleep(0)
        batcher.start()
        return await asyncio.gather(*sent, return_exceptions=True), batcher.failed

    (good, bad, other), failed = _play(steps)
    assert (good, other) == ([1], [3])
    assert isinstance(bad, RuntimeError)
    assert not failed


def test_rows_of_a_client_that_has_gone_are_not_encoded():
    async def steps(batcher, engine):
        gone = asyncio.ensure_future(_send(batcher, "gone", [7] * 50))
        stays = asyncio.ensure_future(_send(batcher, "stays", [1]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        batcher.start()
        await stays
        await asyncio.sleep(0.01)
        return engine.batches, batcher.rows

    assert _play(steps) == ([[1]], 0)


def test_a_batch_waits_for_requests_on_their_way_and_for_no_others():
    async def steps(batcher, engine):
        batcher.start()
        await _send(batcher, "alone", [1])  # no other request is on its way, so it does not wait for the 60 seconds

        async def slow():
            with batcher.admitted("slow", 1) as encode:
                await asyncio.sleep(0.02)
                return await encode([[2]], [None], [1.0])

        coming = asyncio.ensure_future(slow())
        await asyncio.sleep(0)
        await asyncio.gather(_send(batcher, "quick", [3]), coming)
        return engine.batches

    first, second = _play(steps, linger=60.0)
    assert (first, sorted(second)) == ([1], [2, 3])


def test_the_wait_for_others_is_bounded():
    async def steps(batcher, engine):
        batcher.start()
        with batcher.admitted("never", 1):
            return await _send(batcher, "quick", [3])

    assert _play(steps, linger=0.01) == [3]


def test_closing_finishes_what_is_queued_and_takes_nothing_new():
    async def steps(batcher, engine):
        sent = [asyncio.ensure_future(_send(batcher, str(n), [n] * 10)) for n in range(5)]
        await asyncio.sleep(0)
        batcher.start()
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused, batcher.admitted("late", 1):
            pass
        await closing
        return await asyncio.gather(*sent), refused.value.status

    for workers in (1, 3):
        answers, status = _play(steps, workers=workers)
        assert answers == [[n] * 10 for n in range(5)]
        assert status == 503


def test_requests_share_batches_over_http(session, encoder):
    async def steps(client, service):
        encoder.open.clear()
        texts = ["a", "bb", "ccc", "dddd", "eeeee"]
        bodies = [{"model": model, "input": text} for text in texts for model in ("base", "legal")]
        sent = [asyncio.ensure_future(client.post(URL, json=body)) for body in bodies]
        while service.batcher.rows < len(bodies) or service.batcher.arriving:
            await asyncio.sleep(0.001)
        encoder.open.set()
        return [answer.json()["data"][0]["embedding"][:3] for answer in await asyncio.gather(*sent)]

    before = len(encoder.batches)
    vectors = session(steps)
    assert vectors == [[n, 1, value] for n in range(1, 6) for value in (0, 5)]
    assert len(encoder.batches) - before <= 3  # the warm-up, perhaps one begun before the rest had come, the rest


def test_a_full_queue_is_429_with_retry_after(session, encoder):
    async def steps(client, service):
        encoder.open.clear()
        first = asyncio.ensure_future(client.post(URL, json={"model": "base", "input": ["a"] * 4}))
        while not service.batcher.rows:
            await asyncio.sleep(0.001)
        refused = await client.post(URL, json={"model": "base", "input": ["a"] * 4})
        encoder.open.set()
        return refused, await first

    refused, first = session(steps, max_rows=4, queue_rows=8)
    assert first.status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) >= 1


def test_a_fault_in_the_engine_is_reported_without_the_text(session, encoder, caplog):
    async def steps(client, service):
        encoder.poison = 4
        encoder.open.clear()
        sent = [
            asyncio.ensure_future(client.post(URL, json={"model": "base", "input": t})) for t in ("bad!", "good one")
        ]
        while service.batcher.rows < 2 or service.batcher.arriving:
            await asyncio.sleep(0.001)
        encoder.open.set()
        return await asyncio.gather(*sent)

    with caplog.at_level("INFO", logger="scions.serving"):
        bad, _good = session(steps)
    assert bad.status_code == 500
    assert bad.json()["error"]["code"] == "fault"
    assert "nobody may see" not in bad.text
    faults = [record for record in caplog.records if record.getMessage() == "fault"]
    assert faults[0].fields["error"] == "RuntimeError"
    assert "nobody may see" not in str([vars(record) for record in caplog.records])


def test_a_large_request_lets_those_of_other_keys_pass(session, encoder):
    async def steps(client: httpx.AsyncClient, service):
        def send(key, rows):
            body = {"model": "base", "input": ["w " * 9] * rows}
            return client.post(URL, json=body, headers={"authorization": f"Bearer {key}"})

        encoder.open.clear()
        large = asyncio.ensure_future(send("one", 1000))
        while service.batcher.rows < 1000:
            await asyncio.sleep(0.001)
        small = asyncio.ensure_future(send("two", 1))
        while service.batcher.rows < 1001 or service.batcher.arriving:
            await asyncio.sleep(0.001)
        encoder.open.set()
        status = (await small).status_code
        assert not large.done()
        return status, (await large).status_code, len(encoder.batches)

    encoder.pause = 0.001
    keys = {"one": {"name": "one"}, "two": {"name": "two"}}
    status, other, batches = session(steps, keys=keys, batch_tokens=64)
    assert (status, other) == (200, 200)
    assert batches > 100
