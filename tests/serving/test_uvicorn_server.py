"""Connections: too many, idle, slow to send, slow to read."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

URL = "/v1/embeddings"
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
)
SHORT = {"patience": 1.0}


@pytest.fixture
def connect():
    with contextlib.ExitStack() as opened:

        def new(address):
            parts = urlsplit(address)
            return opened.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=15))

        yield new


def _closed(connection):
    """Read to the end; False where it does not come. A reset is an end too."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def _open(address):
    """Count open connections other than the one of this request."""
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("scions_connections ")).split()[1])) - 1


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HTTP/1.1\r\nHost: loc", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_a_connection_that_asks_nothing_is_closed(live, connect, sent):
    with live(**SHORT) as address:
        idle = connect(address)
        idle.sendall(sent)
        assert _closed(idle)
        assert _open(address) == 0


def test_a_head_that_trickles_in_is_cut_off(live, connect):
    with live(**SHORT) as address:
        slow = connect(address)
        end = time.monotonic() + 10
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                slow.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < end


def test_a_body_that_does_not_come_is_408(live, connect, caplog):
    with live(**SHORT) as address, caplog.at_level("INFO", logger="scions.serving"):
        slow, gone = connect(address), connect(address)
        for connection in (slow, gone):
            connection.sendall(HEAD + b'{"model"')
        gone.close()
        with slow.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")  # to its end: the connection is closed
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"]["code"] == "slow_body"
        assert httpx.post(address + URL, json={"model": "base", "input": "a"}).status_code == 200
    statuses = sorted(record.fields["status"] for record in caplog.records if record.getMessage() == "request")
    assert statuses == [200, 408, 499]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_waits_for_its_answer_is_waited_for(live, encoder):
    with live(**SHORT) as address:
        encoder.open.clear()
        threading.Timer(2.5, encoder.open.set).start()
        assert httpx.post(address + URL, json={"model": "base", "input": "a"}, timeout=15).status_code == 200


def test_an_answer_that_nobody_reads_is_dropped(live):
    body = json.dumps({"model": "base", "input": ["a"] * 2000}).encode()
    head = HEAD.replace(b"500", str(len(body)).encode())
    with live(**SHORT) as address, socket.socket() as unread:
        parts = urlsplit(address)
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread.settimeout(5)
        unread.connect((parts.hostname, parts.port))
        with contextlib.suppress(OSError):
            for _ in range(60):  # some 300 kB of answer each: more than buffers between the two take
                unread.sendall(head + body)
        end = time.monotonic() + 15
        while _open(address) and time.monotonic() < end:
            time.sleep(0.1)
        assert _open(address) == 0


def test_a_connection_beyond_the_limit_gets_503_and_health_still_answers(live, connect):
    body = {"model": "base", "input": "a"}
    with live(connections=2) as address:
        held = [connect(address) for _ in range(2)]
        while _open(address) < 2:
            time.sleep(0.01)
        refused = httpx.post(address + URL, json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.json()["error"]["type"] == "server_error"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        assert [httpx.get(address + path).status_code for path in ("/health", "/ready")] == [200, 200]
        for connection in held:
            connection.close()
        end = time.monotonic() + 10
        while _open(address) and time.monotonic() < end:
            time.sleep(0.01)
        assert httpx.post(address + URL, json=body).status_code == 200


def test_a_flood_of_idle_connections_is_bounded_and_passes(live, connect):
    with live(connections=4) as address:
        flood = [connect(address) for _ in range(50)]
        assert all(
            _closed(connection) for connection in flood[4:]
        )  # the last at once, those that would get 503 within a second
        assert _open(address) == 4
        assert httpx.get(f"{address}/ready").status_code == 200
