"""Decisions cached for collections, and their end when adapters are removed."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from scions.serving.auto.collection_cache import CachedDecision, CollectionCache
from scions.serving.http.adapter_choice import Choice
from scions.serving.http.keys import local_caller

URL = "/v1/embeddings"
# The fake base's vectors are (sum of the words' lengths, words, adapter, 1/3, 0, 0, 0, 1): long words point to the
# first axis, many short ones between the first two, and token 0 to neither.
LONG, MANY, OTHER = "w" * 60, "a " * 15, " "
pytestmark = pytest.mark.usefixtures("described")
KEYS = {
    "secret-admin": {"name": "ops", "admin": True},
    "secret-both": {"name": "both", "adapters": ["legal", "medical"]},
}


def _bearer(key):
    return {"authorization": f"Bearer {key}"}


def _decision(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["scions"]["decision"]


def _values(answer):
    assert answer.status_code == 200, answer.text
    return [row["embedding"][2] for row in answer.json()["data"]]


def test_a_collection_stays_where_it_was_first(session, encoder, describe, write, described):
    async def steps(client, service):
        async def decided(text, key="secret-both", **more):
            body = {"model": "auto", "input": [text] * 3, "collection": "handbook", **more}
            return _decision(await client.post(URL, json=body, headers=_bearer(key)))

        first = await decided(LONG)
        encoder.batches.clear()
        cached = [await decided(text) for text in (MANY, OTHER, LONG)]
        cost = sum(map(len, encoder.batches))
        others = [await decided(MANY, collection="other"), await decided(MANY, key="secret-admin")]
        # A newer version of the adapter is for new collections.
        write("legal-2", 50.0)
        describe("legal-2", described["legal"])
        body = {"folder": "legal-2", "name": "legal"}
        added = (await client.post("/v1/adapters", json=body, headers=_bearer("secret-admin"))).json()
        later = [await decided(LONG), await decided(LONG, collection="new")]
        return first, cached, cost, others, added["version"], later

    first, cached, cost, others, added, later = session(steps, keys=KEYS)
    assert first["adapter"] == "legal"
    assert cached == [first] * 3
    assert cost == 9  # the rows themselves, and nothing for the decision
    assert [decision["adapter"] for decision in others] == ["medical", "medical"]
    assert later[0] == first
    assert (later[1]["adapter"], later[1]["version"]) == ("legal", added)
    assert added != first["version"]


def test_without_keys_a_collection_is_everybodys_whatever_the_connection(session, encoder):
    async def steps(client, service):
        service.keys = None
        names = []
        for port, text in ((1, LONG), (2, MANY)):
            client._transport.client = ("127.0.0.1", port)
            body = {"model": "auto", "input": [text], "collection": "handbook"}
            names.append(_decision(await client.post(URL, json=body))["adapter"])
        return names

    assert session(steps) == ["legal", "legal"]


def test_two_first_requests_of_a_collection_agree(session, encoder):
    async def steps(client, service):
        encoder.open.clear()
        bodies = [{"model": "auto", "input": [text] * 3, "collection": "handbook"} for text in (LONG, MANY, MANY)]
        sent = []
        for body in bodies:
            sent.append(asyncio.ensure_future(client.post(URL, json=body)))
            await asyncio.sleep(0.02)
        encoder.open.set()
        return [_decision(answer) for answer in await asyncio.gather(*sent)]

    decisions = session(steps)
    assert decisions[0]["adapter"] == "legal"
    assert decisions == [decisions[0]] * 3


def test_a_failed_first_request_leaves_the_decision_to_the_next(session, encoder):
    encoder.poison = 60

    async def steps(client, service):
        encoder.open.clear()
        sent = []
        for text in (LONG, MANY):
            body = {"model": "auto", "input": [text] * 3, "collection": "handbook"}
            sent.append(asyncio.ensure_future(client.post(URL, json=body)))
            await asyncio.sleep(0.02)
        encoder.open.set()
        return await asyncio.gather(*sent, return_exceptions=True)

    failed, good = session(steps)
    assert isinstance(failed, RuntimeError) or failed.status_code == 500
    assert _decision(good)["adapter"] == "medical"


def test_a_removed_domain_is_forgotten(session, encoder):
    async def steps(client, service):
        async def decided(collection):
            body = {"model": "auto", "input": [LONG] * 3, "collection": collection}
            return _decision(await client.post(URL, json=body))["adapter"]

        names = [await decided("one")]
        entry = weakref.ref(service.adapter_cache.newest()[1]["legal"])
        weights = weakref.ref(entry().weights)
        means = weakref.ref((await service.router.index.domains_for(local_caller(None))).means)
        mean = weakref.ref(service.router.index.known[entry()].mean)
        assert len(service.router.collections) == 1
        assert (await client.delete("/v1/adapters/legal")).status_code == 200
        for _ in range(50):  # what served the last request may take a moment to let go
            gc.collect()
            if (entry(), weights(), means(), mean()) == (None, None, None, None):
                break
            await asyncio.sleep(0.02)
        left = (entry(), weights(), means(), mean(), len(service.router.collections))
        return [*names, await decided("one")], left

    names, left = session(steps)
    assert left == (None, None, None, None, 0)
    assert names == ["legal", "medical"]


def test_the_version_of_a_collection_is_removed(session, write, describe, described):
    async def steps(client, service):
        async def decided():
            body = {"model": "auto", "input": [LONG] * 3, "collection": "handbook"}
            return _decision(await client.post(URL, json=body))

        first = await decided()
        write("legal-2", 50.0)
        describe("legal-2", described["legal"])
        added = (await client.post("/v1/adapters", json={"folder": "legal-2", "name": "legal"})).json()["version"]
        cached = await decided()
        await client.delete(f"/v1/adapters/legal@{first['version']}")
        return first, cached, added, await decided()

    first, cached, added, last = session(steps)
    assert cached == first
    assert (last["adapter"], last["version"]) == ("legal", added)


def test_a_version_that_could_not_stay_is_forgotten_too(session, write, describe):
    """The same folder with other weights, where the old ones were not in memory any more."""

    async def steps(client, service):
        async def decided():
            body = {"model": "auto", "input": [LONG] * 3, "collection": "handbook"}
            return _decision(await client.post(URL, json=body))["version"]

        first = await decided()
        await client.post(URL, json={"model": "medical", "input": "a"})  # takes the memory
        gc.collect()
        write("legal", 50.0)
        added = (await client.post("/v1/adapters", json={"folder": "legal"})).json()["version"]
        return first, added, len(service.router.collections), await decided()

    first, added, cached, last = session(steps, memory=150)
    assert first != added
    assert cached == 0
    assert last == added


def test_deciding_while_adapters_come_and_go(session, encoder):
    async def steps(client, service):
        stop, seen = asyncio.Event(), []

        async def use(more):
            while not stop.is_set():
                body = {"model": "auto", "input": [LONG] * 3, **more}
                answer = await client.post(URL, json=body)
                seen.append((_decision(answer)["adapter"], _values(answer)[0]))

        using = [asyncio.ensure_future(use(more)) for more in ({}, {"collection": "one"}, {"collection": "two"})]
        for _ in range(15):
            await client.delete("/v1/adapters/legal")
            await asyncio.sleep(0.005)
            await client.post("/v1/adapters", json={"folder": "legal"})
            await asyncio.sleep(0.005)
        stop.set()
        await asyncio.gather(*using)
        return seen

    seen = session(steps)
    assert set(seen) == {("legal", 5.0), ("medical", 7.0)}


def test_an_adapter_removed_while_it_is_being_chosen(session, encoder, monkeypatch):
    async def steps(client, service):
        await client.post(URL, json={"model": "auto", "input": [LONG]})
        peek, times = service.adapter_cache.peek, 0

        def removed_first(name, version=None):
            nonlocal times
            times += 1
            if times == 1:
                service.remove("legal", None)
            return peek(name, version)

        monkeypatch.setattr(service.adapter_cache, "peek", removed_first)
        return _decision(await client.post(URL, json={"model": "auto", "input": [LONG] * 3})), times

    decision, times = session(steps)
    assert decision["adapter"] == "medical"
    assert times > 1


def test_the_least_recently_used_collections_are_decided_anew():
    class AnyAdapter:
        def holds(self, name, version):
            return True

    async def run():
        cache, calls = CollectionCache(AnyAdapter(), limit=2), []

        async def ask(name):
            async def decide():
                calls.append(name)
                return CachedDecision(Choice(name, "1"), 1.0, 3)

            return (await cache.get(("c", name), decide)).choice.name

        for name in ("a", "b", "a", "c", "a", "b"):
            assert await ask(name) == name
        return calls, len(cache)

    assert asyncio.run(run()) == (["a", "b", "c", "b"], 2)


def test_a_waiting_request_survives_the_one_that_decides(session, encoder):
    """The first request's client goes; the second decides."""

    async def steps(client, service):
        encoder.open.clear()
        first = asyncio.ensure_future(
            client.post(URL, json={"model": "auto", "input": [LONG] * 3, "collection": "handbook"})
        )
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(
            client.post(URL, json={"model": "auto", "input": [MANY] * 3, "collection": "handbook"})
        )
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.sleep(0.02)
        encoder.open.set()
        return _decision(await second)["adapter"], service.batcher.rows

    assert session(steps) == ("medical", 0)
