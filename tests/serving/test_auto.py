"""`auto`: one decision a request or collection among what the caller may use, and `auto-rows`, one a row."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref

import numpy as np
import pytest

from scions.errors import UsageError
from scions.serving.kept_decisions import Decided, KeptDecisions
from scions.serving.selection import Choice
from scions.store import Base, DomainStatistics, Manifest

URL = "/v1/embeddings"
# The fake base's vectors are (sum of the words' lengths, words, adapter, 1/3, 0, 0, 0, 1): long words point to the
# first axis, many short ones between the first two, and token 0 to neither.
LONG, MANY, OTHER = "w" * 60, "a " * 15, " "
MEANS = {"legal": [1.2, 0, 0, 0, 0, 0, 0, 0], "medical": [0.85, 0.85, 0, 0, 0, 0, 0, 0]}
KEYS = {
    "secret-admin": {"name": "ops", "admin": True},
    "secret-both": {"name": "both", "adapters": ["legal", "medical"]},
    "secret-medical": {"name": "med", "adapters": ["medical"]},
    "secret-none": {"name": "none", "adapters": []},
}


def _bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def describe(root, a_manifest, tiny_base):
    """Write an adapter's scions.json."""

    def write(name, mean=None, variance=0.01, sha256="b" * 64):
        base = Base(id="org/base", weights_sha256=sha256, architecture="bert", hidden_size=8, layers=2)
        domain = None if mean is None else DomainStatistics(mean=mean, spherical_variance=variance, n=5)
        (root / name / "scions.json").write_text(a_manifest(tiny_base, name, base=base, domain=domain).to_json())

    return write


@pytest.fixture(autouse=True)
def _described(describe):
    for name, mean in MEANS.items():
        describe(name, mean)


def _decision(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["scions"]["decision"]


def _values(answer):
    assert answer.status_code == 200, answer.text
    return [row["embedding"][2] for row in answer.json()["data"]]


@pytest.mark.parametrize("asked", [{"model": "base", "adapter": "auto"}, {"model": "auto"}, {"model": "base:auto"}])
@pytest.mark.parametrize(("text", "name", "value"), [(LONG, "legal", 5), (MANY, "medical", 7), (OTHER, None, 0)])
def test_one_decision_for_a_request(ask, read, root, asked, text, name, value):
    answer = ask("POST", URL, json={"input": [text] * 3, **asked})
    assert _values(answer) == [value] * 3
    found = _decision(answer)
    version = None if name is None else read(root / name, name).version
    assert (found["adapter"], found["version"], found["texts"]) == (name, version, 3)
    assert found["confidence"] > 0.9
    assert [space["adapter"] for space in answer.json()["scions"]["spaces"]] == [name]
    assert answer.headers.get("x-scions-adapter") == name


def test_token_ids_decide_as_well(ask):
    found = _decision(ask("POST", URL, json={"model": "auto", "input": [[60], [70], [80]]}))
    assert found["adapter"] == "legal"


def test_an_ordinary_answer_says_nothing_of_decisions(ask):
    told = ask("POST", URL, json={"model": "legal", "input": "a"}).json()["scions"]
    assert "decision" not in told
    assert "confidences" not in told


def test_rows_of_their_own(ask):
    body = {"model": "base", "adapter": "auto-rows", "input": [LONG, OTHER, MANY, LONG], "strength": [1, 1, 2, 0]}
    answer = ask("POST", URL, json=body)
    assert _values(answer) == [5, 0, 14, 0]
    told = answer.json()["scions"]
    assert len(told["confidences"]) == 4
    assert min(told["confidences"]) > 0.9
    assert "decision" not in told
    assert [(space["adapter"], space["rows"]) for space in told["spaces"]] == [
        ("legal", [0]), (None, [1]), ("medical", [2]), ("legal", [3]),
    ]  # fmt: skip


def test_at_most_twenty_rows_of_the_base_are_what_it_costs(session, encoder):
    async def steps(client, service):
        counts = []
        for text, adapter in ((LONG, "auto"), (OTHER, "auto"), (OTHER, "auto-rows")):
            encoder.batches.clear()
            body = {"model": "base", "adapter": adapter, "input": [text] * 50}
            assert (await client.post(URL, json=body)).status_code == 200
            counts.append(sum(map(len, encoder.batches)))
        return counts

    # Rows that fall to the base have their vectors from the decision.
    assert session(steps) == [20 + 50, 50, 50]


def test_base_rows_of_a_decision_come_back_in_their_places(ask):
    inputs = [" " if n % 3 else "w" * n for n in range(40, 70)]
    found = ask("POST", URL, json={"model": "base", "adapter": "auto-rows", "input": inputs}).json()["data"]
    assert [row["embedding"][0] for row in found] == [len(text.strip()) for text in inputs]


def test_a_key_decides_among_what_it_may_use(ask):
    def name(key, text):
        answer = ask("POST", URL, keys=KEYS, headers=_bearer(key), json={"model": "auto", "input": [text] * 3})
        return _decision(answer)["adapter"]

    assert name("secret-both", LONG) == "legal"
    assert name("secret-medical", MANY) == "medical"
    assert name("secret-medical", LONG) == "medical"
    found = ask("POST", URL, keys=KEYS, headers=_bearer("secret-none"), json={"model": "auto", "input": [LONG] * 3})
    assert _decision(found) == {"adapter": None, "version": None, "confidence": 1.0, "texts": 0}


def test_what_is_no_candidate(ask, write, describe, root, caplog):
    for name in ("other-base", "no-statistics", "short", "flat", "imported", "broken"):
        write(name, 9.0)
    describe("other-base", MEANS["legal"], sha256="c" * 64)
    describe("no-statistics")
    describe("short", [1.0, 0.0])
    describe("flat", MEANS["legal"], variance=0.0)
    (root / "broken" / "scions.json").write_text("{")
    for name in MEANS:
        (root / name / "scions.json").unlink()
    caplog.set_level("INFO", logger="scions.serving")
    found = _decision(ask("POST", URL, json={"model": "auto", "input": [LONG]}))
    assert found == {"adapter": None, "version": None, "confidence": 1.0, "texts": 0}
    [line] = [record for record in caplog.records if record.message == "not_candidates_of_auto"]
    assert line.fields["reasons"] == {
        "another base": 1,
        "no domain statistics": 1,
        "unusable domain statistics": 2,
        "unreadable scions.json": 4,
    }


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"adapter": ["auto", None]}, "adapter", "'auto' decides for a whole request and is no row's"),
        ({"adapter": [None, "auto-rows"]}, "adapter", 'give "adapter": "auto-rows"'),
        ({"collection": "c"}, "collection", 'it keeps what "adapter": "auto" has decided'),
        ({"collection": "c", "adapter": "auto-rows"}, "collection", "goes with nothing else"),
        ({"collection": "c", "adapter": "legal"}, "collection", "goes with nothing else"),
        ({"collection": "", "adapter": "auto"}, "collection", "at least 1 character"),
        ({"collection": "c" * 201, "adapter": "auto"}, "collection", "at most 200 characters"),
        ({"collection": 3, "adapter": "auto"}, "collection", "valid string"),
        ({"model": "auto", "adapter": "legal"}, "adapter", "names an adapter already"),
        ({"model": "legal", "adapter": "auto"}, "adapter", "names an adapter already"),
    ],
)
def test_what_is_refused(ask, body, param, message):
    answer = ask("POST", URL, json={"model": "base", "input": ["a", "b"], **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


def test_auto_is_no_model_and_no_adapters_name(ask, root):
    assert ask("GET", "/v1/models/auto").status_code == 404
    assert ask("POST", URL, json={"model": "auto@3f2a", "input": "a"}).status_code == 404
    added = ask("POST", "/v1/adapters", json={"folder": "legal", "name": "auto-rows"})
    assert (added.status_code, added.json()["error"]["code"]) == (400, "bad_name")


@pytest.mark.parametrize(("adapter", "rows"), [("auto", 40), ("auto-rows", 40)])
def test_a_bad_row_has_its_own_number(session, encoder, monkeypatch, adapter, rows):
    encode = encoder.encode_rows

    def picky(ids, weights, strengths):
        for row, tokens in enumerate(ids, 1):
            if 13 in tokens:
                raise UsageError(f"row {row} is one too many")
        return encode(ids, weights, strengths)

    monkeypatch.setattr(encoder, "encode_rows", picky)

    async def steps(client, service):
        texts = [LONG] * rows
        texts[33] = "w" * 13
        return await client.post(URL, json={"model": "base", "adapter": adapter, "input": texts})

    answer = session(steps)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("input[33]: is one too many")


def test_tokens_and_adapters_have_their_limits(ask):
    body = {"model": "base", "adapter": "auto-rows", "input": [LONG, MANY]}
    assert ask("POST", URL, json=body, limits={"max_tokens": 5}).json()["error"]["code"] == "too_large"
    answer = ask("POST", URL, json=body, limits={"max_adapters": 1})
    assert answer.status_code == 413
    assert "its rows go to 2 adapters, at most 1 are allowed" in answer.json()["error"]["message"]


def test_a_collection_stays_where_it_was_first(session, encoder, describe, write):
    async def steps(client, service):
        async def decided(text, key="secret-both", **more):
            body = {"model": "auto", "input": [text] * 3, "collection": "handbook", **more}
            return _decision(await client.post(URL, json=body, headers=_bearer(key)))

        first = await decided(LONG)
        encoder.batches.clear()
        kept = [await decided(text) for text in (MANY, OTHER, LONG)]
        cost = sum(map(len, encoder.batches))
        others = [await decided(MANY, collection="other"), await decided(MANY, key="secret-admin")]
        # A newer version of the adapter is for new collections.
        write("legal-2", 50.0)
        describe("legal-2", MEANS["legal"])
        body = {"folder": "legal-2", "name": "legal"}
        added = (await client.post("/v1/adapters", json=body, headers=_bearer("secret-admin"))).json()
        later = [await decided(LONG), await decided(LONG, collection="new")]
        return first, kept, cost, others, added["version"], later

    first, kept, cost, others, added, later = session(steps, keys=KEYS)
    assert first["adapter"] == "legal"
    assert kept == [first] * 3
    assert cost == 9  # the rows themselves, and nothing for the decision
    assert [one["adapter"] for one in others] == ["medical", "medical"]
    assert later[0] == first
    assert (later[1]["adapter"], later[1]["version"]) == ("legal", added)
    assert added != first["version"]


def test_without_keys_a_collection_is_everybodys_whatever_the_connection(session, encoder):
    async def steps(client, service):
        service.keys = None
        found = []
        for port, text in ((1, LONG), (2, MANY)):
            client._transport.client = ("127.0.0.1", port)
            body = {"model": "auto", "input": [text], "collection": "handbook"}
            found.append(_decision(await client.post(URL, json=body))["adapter"])
        return found

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

    found = session(steps)
    assert found[0]["adapter"] == "legal"
    assert found == [found[0]] * 3


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
        entry = weakref.ref(service.shelf.newest()[1]["legal"])
        weights = weakref.ref(entry().weights)
        means = weakref.ref(service.router._index._table.whole.means)
        own = weakref.ref(service.router._index._known[entry()].mean)
        assert len(service.router.kept) == 1
        assert (await client.delete("/v1/adapters/legal")).status_code == 200
        for _ in range(50):  # what served the last request may take a moment to let go
            gc.collect()
            if (entry(), weights(), means(), own()) == (None, None, None, None):
                break
            await asyncio.sleep(0.02)
        left = (entry(), weights(), means(), own(), len(service.router.kept))
        return [*names, await decided("one")], left

    names, left = session(steps)
    assert left == (None, None, None, None, 0)
    assert names == ["legal", "medical"]


def test_the_version_of_a_collection_is_removed(session, write, describe):
    async def steps(client, service):
        async def decided():
            body = {"model": "auto", "input": [LONG] * 3, "collection": "handbook"}
            return _decision(await client.post(URL, json=body))

        first = await decided()
        write("legal-2", 50.0)
        describe("legal-2", MEANS["legal"])
        added = (await client.post("/v1/adapters", json={"folder": "legal-2", "name": "legal"})).json()["version"]
        kept = await decided()
        await client.delete(f"/v1/adapters/legal@{first['version']}")
        return first, kept, added, await decided()

    first, kept, added, last = session(steps)
    assert kept == first
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
        return first, added, len(service.router.kept), await decided()

    first, added, kept, last = session(steps, memory=150)
    assert first != added
    assert kept == 0
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


def test_an_adapter_removed_while_it_is_being_chosen(session, encoder):
    async def steps(client, service):
        await client.post(URL, json={"model": "auto", "input": [LONG]})
        load, times = service._weights, 0

        async def removed_first(wanted):
            nonlocal times
            times += 1
            if times == 1:
                service.remove("legal", None)
            return await load(wanted)

        service.router._load = removed_first
        return _decision(await client.post(URL, json={"model": "auto", "input": [LONG] * 3})), times

    found, times = session(steps)
    assert found["adapter"] == "medical"
    assert times > 1


def test_manifests_are_read_once_and_only_new_ones(session, write, describe, monkeypatch):
    seen = []

    class Counted:
        @staticmethod
        def read(folder):
            seen.append(folder.name)
            return Manifest.read(folder)

    monkeypatch.setattr("scions.serving.domain_index.Manifest", Counted)

    async def steps(client, service):
        async def several(text):
            bodies = [{"model": "auto", "input": [text]}] * 4
            answers = await asyncio.gather(*(client.post(URL, json=body) for body in bodies))
            return {_decision(answer)["adapter"] for answer in answers}

        assert seen == []  # nothing before it is needed
        names = [await several(LONG)]
        before = sorted(seen)
        await client.delete("/v1/adapters/medical")
        names.append(await several(LONG))
        return names, before, sorted(seen)

    names, before, after = session(steps)
    assert names == [{"legal"}, {"legal"}]
    assert before == ["legal", "medical"]
    assert after == before


def test_weights_in_memory_answer_for_their_own_domain(session, encoder, root, describe):
    """The folder was written anew, and not taken up: what is loaded is still the old one."""

    async def steps(client, service):
        await client.post(URL, json={"model": "legal", "input": "a"})
        entry = service.shelf.newest()[1]["legal"]
        object.__setattr__(entry.weights, "domain", DomainStatistics(mean=MEANS["legal"], spherical_variance=0.01, n=1))
        describe("legal", [0.0, 0, 0, 0, 0, 0, 1.0, 0])
        return _decision(await client.post(URL, json={"model": "auto", "input": [LONG] * 3}))["adapter"]

    assert session(steps) == "legal"


def test_a_damaged_adapter_that_is_chosen_fails_its_own_requests(ask, root):
    (root / "legal" / "adapter_model.safetensors").write_text("{")
    answer = ask("POST", URL, json={"model": "auto", "input": [LONG] * 3})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "adapter_unusable")
    assert _decision(ask("POST", URL, json={"model": "auto", "input": [MANY] * 3}))["adapter"] == "medical"


def test_decisions_are_counted(session):
    async def steps(client, service):
        await client.post(URL, json={"model": "auto", "input": [LONG] * 3})
        await client.post(URL, json={"model": "auto-rows", "input": [LONG, OTHER, MANY]})
        return (await client.get("/metrics")).text

    text = session(steps)
    assert 'scions_auto_decisions_total{outcome="adapter"} 3.0' in text
    assert 'scions_auto_decisions_total{outcome="base"} 1.0' in text
    assert 'scions_rows_total{adapter="legal"} 4.0' in text


def test_the_least_recently_used_collections_are_decided_anew():
    class Nothing:
        def holds(self, name, version):
            return True

    async def run():
        kept, calls = KeptDecisions(Nothing(), most=2), []

        async def ask(name):
            async def decide():
                calls.append(name)
                return Decided(Choice(name, "1"), 1.0, 3)

            return (await kept.get(("c", name), decide)).choice.name

        for name in ("a", "b", "a", "c", "a", "b"):
            assert await ask(name) == name
        return calls, len(kept)

    assert asyncio.run(run()) == (["a", "b", "c", "b"], 2)


def test_who_waits_for_a_decision_survives_the_one_that_made_it(session, encoder):
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
        return _decision(await second)["adapter"], service._batcher.rows

    assert session(steps) == ("medical", 0)


def test_numbers_of_an_answer_are_json(ask):
    text = ask("POST", URL, json={"model": "auto", "input": [LONG]}).text
    assert np.isfinite(json.loads(text)["scions"]["decision"]["confidence"])
