"""Every body gets an answer of the OpenAPI file, and never a 5xx."""

from __future__ import annotations

import asyncio
import json

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

URL = "/v1/embeddings"
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))
_names = st.sampled_from(
    ["base", "auto", "auto-rows", "legal", "medical", "base:legal", "legal@", "legal@abc", "", "\ud800", "a/../b"]
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "input": st.text() | st.lists(st.text(max_size=8)) | st.lists(st.integers(-1, 101)) | _json,
        "model": _names | _json,
        "adapter": _names | st.lists(st.none() | _names, max_size=3) | _json,
        "collection": _names | _json,
        "strength": st.floats() | st.lists(st.floats(-10, 10), max_size=3) | _json,
        "dimensions": st.integers() | _json,
        "encoding_format": st.sampled_from(["float", "base64"]) | _json,
        "prompt": st.sampled_from(["query", "none"]) | _json,
        "user": _json,
    },
)
_bodies = _fields.map(lambda body: json.dumps(body).encode()) | _json.map(lambda body: json.dumps(body).encode())


def _check(answer: httpx.Response) -> None:
    known = (200, 400, 404, 413, 422)
    assert answer.status_code in known, (answer.status_code, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    else:
        assert answer.json()["data"]


def test_no_body_is_a_fault_of_the_server(make_app):
    app = make_app()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(app.state.service.start())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(_bodies | st.binary(max_size=60))
    def send(body: bytes) -> None:
        for path in (URL, "/v1/adapters"):
            request = client.post(path, content=body, headers={"content-type": "application/json"})
            _check_or_added(loop.run_until_complete(request), path)

    def _check_or_added(answer: httpx.Response, path: str) -> None:
        if path == URL:
            _check(answer)
        else:
            assert answer.status_code in (200, 400, 404, 409, 413), answer.text

    try:
        send()
    finally:
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(app.state.service.close())
        loop.close()
