"""`auto`: one decision a request among what the caller may use, and `auto-rows`, one a row."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from scions.errors import UsageError
from scions.store import DomainStatistics, Manifest

URL = "/v1/embeddings"
# The fake base's vectors are (sum of the words' lengths, words, adapter, 1/3, 0, 0, 0, 1): long words point to the
# first axis, many short ones between the first two, and token 0 to neither.
LONG, MANY, OTHER = "w" * 60, "a " * 15, " "
pytestmark = pytest.mark.usefixtures("described")
KEYS = {
    "secret-both": {"name": "both", "adapters": ["legal", "medical"]},
    "secret-medical": {"name": "med", "adapters": ["medical"]},
    "secret-none": {"name": "none", "adapters": []},
}


def _bearer(key):
    return {"authorization": f"Bearer {key}"}


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
    decision = _decision(answer)
    version = None if name is None else read(root / name, name).version
    assert (decision["adapter"], decision["version"], decision["texts"]) == (name, version, 3)
    assert decision["confidence"] > 0.9
    assert [space["adapter"] for space in answer.json()["scions"]["spaces"]] == [name]
    assert answer.headers.get("x-scions-adapter") == name


def test_token_ids_decide_as_well(ask):
    decision = _decision(ask("POST", URL, json={"model": "auto", "input": [[60], [70], [80]]}))
    assert decision["adapter"] == "legal"


def test_an_ordinary_answer_says_nothing_of_decisions(ask):
    origin = ask("POST", URL, json={"model": "legal", "input": "a"}).json()["scions"]
    assert "decision" not in origin
    assert "confidences" not in origin


def test_rows_of_their_own(ask):
    body = {"model": "base", "adapter": "auto-rows", "input": [LONG, OTHER, MANY, LONG], "strength": [1, 1, 2, 0]}
    answer = ask("POST", URL, json=body)
    assert _values(answer) == [5, 0, 14, 0]
    origin = answer.json()["scions"]
    assert len(origin["confidences"]) == 4
    assert min(origin["confidences"]) > 0.9
    assert "decision" not in origin
    assert [(space["adapter"], space["rows"]) for space in origin["spaces"]] == [
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
    rows = ask("POST", URL, json={"model": "base", "adapter": "auto-rows", "input": inputs}).json()["data"]
    assert [row["embedding"][0] for row in rows] == [len(text.strip()) for text in inputs]


def test_a_key_decides_among_what_it_may_use(ask):
    def name(key, text):
        answer = ask("POST", URL, keys=KEYS, headers=_bearer(key), json={"model": "auto", "input": [text] * 3})
        return _decision(answer)["adapter"]

    assert name("secret-both", LONG) == "legal"
    assert name("secret-medical", MANY) == "medical"
    assert name("secret-medical", LONG) == "medical"
    answer = ask("POST", URL, keys=KEYS, headers=_bearer("secret-none"), json={"model": "auto", "input": [LONG] * 3})
    assert _decision(answer) == {"adapter": None, "version": None, "confidence": 1.0, "texts": 0}


def test_what_is_no_candidate(ask, write, describe, root, caplog, described):
    for name in ("other-base", "no-statistics", "short", "flat", "imported", "broken"):
        write(name, 9.0)
    describe("other-base", described["legal"], sha256="c" * 64)
    describe("no-statistics")
    describe("short", [1.0, 0.0])
    describe("flat", described["legal"], variance=0.0)
    (root / "broken" / "scions.json").write_text("{")
    for name in described:
        (root / name / "scions.json").unlink()
    caplog.set_level("INFO", logger="scions.serving")
    decision = _decision(ask("POST", URL, json={"model": "auto", "input": [LONG]}))
    assert decision == {"adapter": None, "version": None, "confidence": 1.0, "texts": 0}
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
        ({"adapter": ["auto", None]}, "adapter", "'auto' is for a whole request, not for a row"),
        ({"adapter": [None, "auto-rows"]}, "adapter", 'give "adapter": "auto-rows"'),
        ({"collection": "c"}, "collection", 'it stores the decision of "adapter": "auto"'),
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


def test_manifests_are_read_once_and_only_new_ones(session, write, describe, monkeypatch):
    seen = []

    class Counted:
        @staticmethod
        def read(folder):
            seen.append(folder.name)
            return Manifest.read(folder)

    monkeypatch.setattr("scions.serving.auto.domain_index.Manifest", Counted)

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


def test_weights_in_memory_answer_for_their_own_domain(session, encoder, root, describe, described):
    """The folder was replaced without a POST, so the old weights are still loaded."""

    async def steps(client, service):
        await client.post(URL, json={"model": "legal", "input": "a"})
        entry = service.adapter_cache.newest()[1]["legal"]
        object.__setattr__(
            entry.weights, "domain", DomainStatistics(mean=described["legal"], spherical_variance=0.01, n=1)
        )
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


def test_numbers_of_an_answer_are_json(ask):
    text = ask("POST", URL, json={"model": "auto", "input": [LONG]}).text
    assert np.isfinite(json.loads(text)["scions"]["decision"]["confidence"])
