"""A real server: OpenAI's client, broken connections, and shutdown."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import pytest

from scions.errors import UsageError
from scions.serving import listen

KEYS = {"secret": {"name": "team", "adapters": ["legal"]}, "watch": {"name": "watch"}}


def test_the_official_client(live):
    with live(keys=KEYS) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
        packed = client.embeddings.create(model="legal", input=["a bb", "ccc"])  # asks for base64 by itself
        plain = client.embeddings.create(model="legal", input=["a bb", "ccc"], encoding_format="float")
        ids = client.embeddings.create(model="base", input=[[1, 2], [3]], dimensions=4)
        mixed = client.embeddings.create(model="base", input=["a", "b"], extra_body={"adapter": ["legal", None]})
        assert [row.embedding for row in packed.data] == [row.embedding for row in plain.data]
        assert packed.data[0].embedding[:3] == [3, 2, 5]
        assert packed.usage.prompt_tokens == 3
        assert packed.scions["spaces"][0]["adapter"] == "legal"
        assert [len(row.embedding) for row in ids.data] == [4, 4]
        assert [row.embedding[2] for row in mixed.data] == [5, 0]
        assert [model.id for model in client.models.list()] == ["base", "legal"]
        assert client.models.retrieve("base:legal").id == "base:legal"
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="medical", input="a")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            client.embeddings.create(model="base", input="")
        assert wrong.value.param == "input"
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="other").models.list()


def test_the_official_client_reads_retry_after(live, encoder):
    body = {"model": "base", "input": ["a"] * 4}
    with live(keys=KEYS, max_rows=4, queue_rows=8) as address:
        parts = urlsplit(address)
        encoder.open.clear()
        first = http.client.HTTPConnection(parts.hostname, parts.port)
        headers = {"content-type": "application/json", "authorization": "Bearer secret"}
        first.request("POST", "/v1/embeddings", json.dumps(body), headers)
        watch = {"authorization": "Bearer watch"}
        while "scions_queue_rows 4.0" not in httpx.get(f"{address}/metrics", headers=watch).text:
            time.sleep(0.005)
        try:
            with (
                openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0, timeout=5) as client,
                pytest.raises(openai.RateLimitError) as refused,
            ):
                client.embeddings.create(**body)
        finally:
            encoder.open.set()
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert first.getresponse().status == 200
        first.close()


def test_a_client_that_goes_away_frees_its_place(live, encoder):
    with live() as address:
        parts = urlsplit(address)
        encoder.open.clear()
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        body = json.dumps({"model": "base", "input": ["a"] * 100})
        connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        while "scions_queue_rows 100.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.005)
        connection.close()
        while "scions_queue_rows 0.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.005)
        encoder.open.set()
        answer = httpx.post(f"{address}/v1/embeddings", json={"model": "base", "input": "a"})
        assert answer.status_code == 200
        assert 'status="499"' in httpx.get(f"{address}/metrics").text


def test_slow_clients_hold_up_nobody(live):
    with live() as address:
        parts = urlsplit(address)
        slow = [socket.create_connection((parts.hostname, parts.port)) for _ in range(20)]
        for connection in slow:  # a body that never ends, and an answer that is never read
            connection.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b'Content-Length: 500\r\n\r\n{"model"'
            )
        try:
            answers = [
                httpx.post(f"{address}/v1/embeddings", json={"model": "base", "input": "a"}).status_code
                for _ in range(5)
            ]
        finally:
            for connection in slow:
                connection.close()
        assert answers == [200] * 5


def test_a_body_that_is_too_large_is_413(live):
    with live(max_body=100_000) as address:
        body = json.dumps({"model": "base", "input": "a" * 300_000})
        answer = httpx.post(f"{address}/v1/embeddings", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too_large"


def test_many_clients_at_once(live):
    async def ask(client, number):
        body = {"model": "base", "input": ["w " * (number % 7 + 1)] * 3, "adapter": ["legal", None, "medical"]}
        answer = await client.post("/v1/embeddings", json=body)
        vectors = np.array([row["embedding"] for row in answer.json()["data"]])
        return vectors[:, :3].tolist() == [[number % 7 + 1] * 2 + [value] for value in (5, 0, 7)]

    async def run(address):
        async with httpx.AsyncClient(base_url=address, timeout=20) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(200)))

    with live() as address:
        assert all(asyncio.run(run(address)))


_SERVER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("fakes", sys.argv[1])
fakes = sys.modules["fakes"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)
from scions.serving import build, listen, run
from scions.serving.logs import to_stderr
to_stderr()
class Held(fakes.FakeEncoder):
    def encode_rows(self, ids, *columns):
        while len(ids) > 1 and not pathlib.Path(sys.argv[3]).exists():
            time.sleep(0.01)
        return super().encode_rows(ids, *columns)
app = build(Held(), fakes.BASE_INFO, fakes.read_fake, sys.argv[2])
listening = listen("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
run(app, listening)
"""


def _until(happened, what):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if happened():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"never: {what}")


def test_sigterm_finishes_what_runs_and_tells_load_balancers(root, tmp_path):
    fakes, go = Path(__file__).parent / "conftest.py", tmp_path / "go"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(fakes), str(root), str(go)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        address = f"http://127.0.0.1:{port}"
        _until(lambda: httpx.get(f"{address}/ready").status_code == 200, "ready")
        headers = {"content-type": "application/json"}
        body = json.dumps({"model": "legal", "input": ["a"] * 5})
        running, sending = (http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(2))
        running.request("POST", "/v1/embeddings", body, headers)
        sending.request("POST", "/v1/embeddings", None, {**headers, "content-length": str(len(body))})
        sending.send(body[:10].encode())
        with httpx.Client(base_url=address, timeout=20) as kept_alive:
            _until(lambda: "scions_queue_rows 5.0" in kept_alive.get("/metrics").text, "queued")
            process.send_signal(signal.SIGTERM)
            _until(lambda: httpx.get(f"{address}/ready").status_code == 503, "503 at /ready on a new connection")
            assert httpx.get(f"{address}/health").status_code == 200
            refused = kept_alive.post("/v1/embeddings", json={"model": "base", "input": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
        assert refused.headers["connection"] == "close"
        assert int(refused.headers["retry-after"]) >= 1
        sending.send(body[10:].encode())
        go.touch()
        for begun in (running, sending):
            answer = begun.getresponse()
            assert answer.status == 200
            assert len(json.loads(answer.read())["data"]) == 5
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        lines = [json.loads(line) for line in errors.splitlines()]
        assert {"request"} <= {line["event"] for line in lines}
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_is_an_error():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UsageError, match="the port is taken"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="cannot listen on"):
        listen("no such host.invalid", 8000)
