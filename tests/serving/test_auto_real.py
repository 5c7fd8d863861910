"""`auto` of a server around a real encoder decides as the encoder does."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np
import pytest

from scions.encoder.domain_encoder import DomainEncoder
from scions.serving import BaseInfo, Settings, build
from scions.serving.http.keys import local_caller

URL = "/v1/embeddings"
ADAPTERS = {"legal": "court", "medical": "fever"}
ROWS = ["court", "the model", "fever", "court"]


@pytest.fixture(autouse=True)
def _few_threads(one_thread: None) -> None:
    pass


@pytest.fixture
def served(tiny_base, publish_adapter, told_apart, adapters_aside, play):
    """An encoder, and a function that runs steps on a server of two adapters, ``legal`` for queries only."""
    for seed, (name, word) in enumerate(ADAPTERS.items()):
        more = {"query_side": True, "format_version": 2} if name == "legal" else {}
        publish_adapter(name, seed=seed, domain=told_apart[word], max_length=64, **more)
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    app = build(encoder, BaseInfo.of(encoder), encoder.read_adapter, adapters_aside, settings=Settings())
    return encoder, lambda steps: play(app, steps)


def _vectors(answer):
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def test_vectors_and_decisions_are_the_encoders_own(served):
    encoder, run = served

    async def steps(client, service):
        ids, _ = encoder.tokenize_rows(["fever"] * 30)
        bodies = [
            {"model": "auto", "input": ["fever"] * 30},
            {"model": "auto", "input": ids},
            {"model": "auto-rows", "input": ROWS},
            {"model": "auto", "input": ["court"] * 3},
            {"model": "auto", "input": ["court"] * 3, "prompt": "document"},
        ]
        return [await client.post(URL, json=body) for body in bodies]

    answers = run(steps)
    for name in ADAPTERS:
        encoder.load_adapter(name)
    whole, ids, rows, queries, documents = map(_vectors, answers)
    expected = encoder.encode(["fever"] * 30, adapter="auto")
    np.testing.assert_allclose(expected, encoder.encode(["fever"] * 30, adapter="medical"), atol=1e-5)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(ids, expected, atol=1e-5)
    np.testing.assert_allclose(rows, encoder.encode(ROWS, adapter="auto-rows"), atol=1e-5)
    np.testing.assert_allclose(queries, encoder.encode(["court"] * 3, adapter="legal"), atol=1e-5)
    np.testing.assert_allclose(documents, encoder.encode(["court"] * 3), atol=1e-5)
    origins = [answer.json()["scions"] for answer in answers]
    decision = encoder.route(["fever"] * 30)
    assert origins[0]["decision"]["adapter"] == decision.adapter == "medical"
    assert origins[0]["decision"]["confidence"] == pytest.approx(decision.confidence, abs=1e-4)
    assert origins[0]["decision"]["texts"] == 20
    assert [origin["spaces"][0]["space"] for origin in origins[3:]] == [encoder.space()] * 2
    assert origins[4]["decision"]["adapter"] == "legal"


def test_a_removed_adapter_leaves_nothing_in_memory(served):
    _, run = served

    async def steps(client, service):
        body = {"model": "auto", "input": ["fever"] * 3, "collection": "handbook"}
        first = (await client.post(URL, json=body)).json()["scions"]["decision"]["adapter"]
        weights = service.adapter_cache.newest()[1]["medical"].weights
        held = [
            weakref.ref(weights),
            weakref.ref(weights.domain),
            weakref.ref(await service.router.index.domains_for(local_caller(None))),
        ]
        del weights
        await client.delete("/v1/adapters/medical")
        for _ in range(50):  # the thread that encoded the last rows may not have let go yet
            gc.collect()
            if not any(reference() for reference in held):
                break
            await asyncio.sleep(0.02)
        again = (await client.post(URL, json=body)).json()["scions"]["decision"]["adapter"]
        return first, [reference() for reference in held], again

    assert run(steps) == ("medical", [None] * 3, None)
