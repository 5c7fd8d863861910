"""Models, adapters, state, counts and logs over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from scions.serving.adapter_cache import Entry
from scions.serving.logs import JsonLines
from scions.serving.metrics import MAX_ADAPTER_LABELS, OTHER

URL = "/v1/embeddings"


def test_models_are_listed_as_openai_does(ask):
    body = ask("GET", "/v1/models").json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["base", "legal", "medical"]
    assert all(set(model) == {"id", "object", "created", "owned_by"} for model in body["data"])


@pytest.mark.parametrize("name", ["base", "org/base", "legal", "base:legal", "org/base:legal"])
def test_one_model(ask, name):
    assert ask("GET", f"/v1/models/{name}").json()["id"] == name


@pytest.mark.parametrize("name", ["nobody", "legal@000000000000", "org/nobody"])
def test_a_model_that_is_not_there(ask, name):
    assert ask("GET", f"/v1/models/{name}").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/adapters"])
def test_long_lists_let_other_requests_continue(session, root, path):
    names = [f"d{number:04}" for number in range(2000)]

    async def steps(client, service):
        for name in names:
            service.adapter_cache._names[name] = [Entry(root / name, 1.0)]
        switches = 0

        async def others():
            nonlocal switches
            while True:
                await asyncio.sleep(0)
                switches += 1
                if switches == 15:  # one that goes while the list is written
                    service.adapter_cache.remove(names[-1])

        waiting = asyncio.ensure_future(others())
        answer = await client.get(path)
        waiting.cancel()
        return answer, switches

    answer, switches = session(steps)
    assert switches > 20
    assert [row["id"] for row in answer.json()["data"] if row["id"] != "base"] == [*names[:-1], "legal", "medical"]


def test_adapters_are_added_replaced_and_removed(session, write):
    async def steps(client, service):
        async def value(model):
            answer = await client.post(URL, json={"model": model, "input": "a"})
            return answer.json()["data"][0]["embedding"][2] if answer.status_code == 200 else answer.status_code

        assert await value("tax") == 404
        write("tax", 3.0)
        added = (await client.post("/v1/adapters", json={"folder": "tax"})).json()
        assert added["new"] is True
        assert await value("tax") == 3
        write("tax", 4.0)
        assert await value("tax") == 3  # nothing changes before the POST
        replaced = (await client.post("/v1/adapters", json={"folder": "tax"})).json()
        assert [version["version"] for version in replaced["versions"]] == [replaced["version"], added["version"]]
        assert [await value("tax"), await value(f"tax@{added['version']}")] == [4, 3]
        again = (await client.post("/v1/adapters", json={"folder": "tax"})).json()
        assert (again["new"], again["version"]) == (False, replaced["version"])
        gone = await client.delete(f"/v1/adapters/tax@{replaced['version']}")
        assert gone.json()["versions"] == [replaced["version"]]
        assert await value("tax") == 3
        tax = (await client.get("/v1/adapters/tax")).json()
        assert [(v["version"], v["kept"]) for v in tax["versions"]] == [(added["version"], True)]
        assert (await client.delete("/v1/adapters/tax")).json()["deleted"] is True
        assert await value("tax") == 404
        assert (await client.delete("/v1/adapters/tax")).status_code == 404

    session(steps)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"folder": "../secrets"}, 400, "bad_name"),
        ({"folder": "/etc", "name": "etc"}, 400, "bad_name"),
        ({"folder": "legal", "name": "a/b"}, 400, "bad_name"),
        ({"folder": "nobody"}, 404, "no_folder"),
        ({"folder": 1}, 400, "invalid_body"),
        ({}, 400, "invalid_body"),
        ({"folder": "legal", "path": "/"}, 400, "invalid_body"),
    ],
)
def test_adding_what_cannot_be_added(ask, body, status, code):
    answer = ask("POST", "/v1/adapters", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_requests_under_way_finish_on_the_weights_they_began_with(session, encoder, write):
    async def steps(client, service):
        await client.post(URL, json={"model": "legal", "input": "a"})
        encoder.open.clear()
        running = asyncio.ensure_future(client.post(URL, json={"model": "legal", "input": "a"}))
        while not service.batcher.rows:
            await asyncio.sleep(0.001)
        while service.batcher.arriving:
            await asyncio.sleep(0.001)
        write("legal", 50.0)
        await client.post("/v1/adapters", json={"folder": "legal"})
        await client.delete("/v1/adapters/legal")
        encoder.open.set()
        return (await running).json()["data"][0]["embedding"][2]

    assert session(steps) == 5


def test_nothing_fails_while_adapters_come_and_go(session, write):
    async def steps(client, service):
        write("tax", 3.0)
        await client.post("/v1/adapters", json={"folder": "tax"})
        stop = asyncio.Event()
        problems, answers = [], 0

        async def use(number):
            nonlocal answers
            while not stop.is_set():
                body = {"model": "base", "input": ["a", "b", "c"], "adapter": ["tax", None, "legal"]}
                answer = await client.post(URL, json=body)
                answers += 1
                if answer.status_code != 200:
                    problems.append(answer.text)
                elif answer.json()["data"][0]["embedding"][2] not in (3, 4):
                    problems.append(answer.json()["data"][0])

        using = [asyncio.ensure_future(use(number)) for number in range(4)]
        for number in range(30):
            write("tax-2", 4.0)
            added = await client.post("/v1/adapters", json={"folder": "tax-2", "name": "tax"})
            await asyncio.sleep(0.005)
            removed = await client.delete(f"/v1/adapters/tax@{added.json()['version']}")
            write(f"d{number}", 1.0)
            other = await client.post("/v1/adapters", json={"folder": f"d{number}"})
            gone = await client.delete(f"/v1/adapters/d{number}")
            problems += [r.text for r in (added, removed, other, gone) if r.status_code != 200]
        stop.set()
        await asyncio.gather(*using)
        return problems, answers, service.adapter_cache.loaded_bytes, service.batcher.rows

    problems, answers, loaded, rows = session(steps, memory=300)
    assert problems == []
    assert answers > 10
    assert loaded <= 300
    assert rows == 0


def test_state(session):
    async def steps(client, service):
        sound = [(await client.get(path)).json()["status"] for path in ("/health", "/ready")]
        service.ready = False
        stopping = await client.get("/ready")
        service.ready = True
        service.batcher._workers[0].cancel()
        await asyncio.sleep(0)
        broken = await client.get("/health")
        return sound, stopping.status_code, broken.status_code, broken.json()

    assert session(steps) == (["ok", "ready"], 503, 503, {"status": "failed"})


def test_counts(session):
    async def steps(client, service):
        body = {"model": "base", "input": ["a b", "c"], "adapter": ["legal", None]}
        for _ in range(2):
            await client.post(URL, json=body)
        await client.post(URL, json={"model": "nobody", "input": "a"})
        await client.request("BREW", URL)
        return (await client.get("/metrics")).text

    text = session(steps)
    lines = set(text.splitlines())
    assert {
        'scions_requests_total{method="POST",route="/v1/embeddings",status="200"} 2.0',
        'scions_requests_total{method="POST",route="/v1/embeddings",status="404"} 1.0',
        'scions_rows_total{adapter="legal"} 2.0',
        'scions_tokens_total{adapter="legal"} 4.0',
        'scions_tokens_total{adapter="base"} 2.0',
        "scions_adapter_hits_total 1.0",
        "scions_adapter_misses_total 1.0",
        "scions_adapters_registered 2.0",
        "scions_adapters_bytes 100.0",
        "scions_queue_rows 0.0",
    } <= lines
    assert 'method="BREW"' not in text
    for histogram in ("scions_queue_seconds", "scions_batch_fill", "scions_batch_rows", "scions_request_seconds"):
        assert f"{histogram}_bucket" in text


def test_labels_are_bounded(make_app):
    metrics = make_app().state.service.metrics
    for number in range(MAX_ADAPTER_LABELS + 50):
        metrics.encoded(f"d{number}", 1, 1)
    text = metrics.text().decode()
    assert text.count("scions_rows_total{") == MAX_ADAPTER_LABELS + 1
    assert f'scions_rows_total{{adapter="{OTHER}"}} 50.0' in text


def test_logs_are_json_without_texts(session, caplog):
    async def steps(client, service):
        good = await client.post(URL, json={"model": "legal", "input": ["private words", "more"]})
        await client.post(URL, json={"model": "base", "input": ["private", 1]})
        return good.headers["x-request-id"]

    with caplog.at_level(logging.INFO, logger="scions.serving"):
        identity = session(steps)
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "scions.serving"]
    assert lines[0]["id"] == identity
    expected = {"event": "request", "method": "POST", "route": "/v1/embeddings", "status": 200, "caller": "local",
                "rows": 2, "tokens": 3, "adapters": 1}  # fmt: skip
    assert expected.items() <= lines[0].items()
    assert lines[1]["status"] == 400
    assert "private" not in str(lines)


def test_an_error_is_logged_without_its_message():
    try:
        raise ValueError("private words")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "failed", None, (ValueError, error, error.__traceback__)
        )
    line = json.loads(JsonLines().format(record))
    assert line["error"] == "ValueError"
    assert "private" not in str(line)
    assert "test_an_error_is_logged" in line["at"][0]
