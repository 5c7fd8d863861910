"""POST /v1/embeddings: answers, and errors that name the wrong field."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json

import numpy as np
import pytest

from scions.serving.http.responses import embeddings_body
from scions.store import space_fingerprint

URL = "/v1/embeddings"


def _vectors(response):
    assert response.status_code == 200, response.text
    return [row["embedding"] for row in response.json()["data"]]


def _post(ask, **body):
    limits = body.pop("limits", None)
    return ask("POST", URL, json={"model": "base", **body}, limits=limits)


@pytest.mark.parametrize(
    ("content", "sums"),
    [
        ("a bb", [3]),
        (["a bb", "ccc"], [3, 3]),
        ([1, 2, 5], [8]),
        ([[1, 2], [9]], [3, 9]),
    ],
)
def test_every_form_of_input(ask, content, sums):
    assert [vector[0] for vector in _vectors(_post(ask, input=content))] == sums


def test_the_answer_is_openais_with_the_space_beside(ask, root):
    answer = _post(ask, input=["a bb", "ccc"], model="legal")
    body = answer.json()
    digest = hashlib.sha256((root / "legal" / "adapter_model.safetensors").read_bytes()).hexdigest()
    space = space_fingerprint("b" * 64, digest, 1.0, pooling="mean", dimensions=8)
    assert body["object"] == "list"
    assert body["model"] == "legal"
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [row["index"] for row in body["data"]] == [0, 1]
    assert {row["object"] for row in body["data"]} == {"embedding"}
    named = {"space": space, "adapter": "legal", "version": digest[:12], "strength": 1.0, "rows": [0, 1]}
    assert body["scions"] == {"base": "org/base", "dimensions": 8, "truncated": 0, "spaces": [named]}
    assert answer.headers["x-scions-base"] == "org/base"
    assert answer.headers["x-scions-adapter"] == "legal"
    assert answer.headers["x-scions-version"] == digest[:12]
    assert answer.headers["x-scions-space"] == space


@pytest.mark.parametrize(
    ("model", "value"),
    [
        ("base", 0), ("org/base", 0), ("legal", 5), ("base:legal", 5), ("org/base:medical", 7),
        ("legal@{legal}", 5), ("base:legal@{legal}", 5),
    ],
)  # fmt: skip
def test_model_names_base_adapter_and_version(ask, read, root, model, value):
    name = model.format(legal=read(root / "legal", "legal").version)
    assert _vectors(_post(ask, input="a", model=name))[0][2] == value


def test_an_adapter_and_a_strength_for_every_row(ask):
    answer = _post(ask, input=["a"] * 4, adapter=["legal", None, "medical", "legal"], strength=[1, 1, 0.5, 1])
    assert [vector[2] for vector in _vectors(answer)] == [5, 0, 3.5, 5]
    spaces = answer.json()["scions"]["spaces"]
    assert [(space["adapter"], space["strength"], space["rows"]) for space in spaces] == [
        ("legal", 1.0, [0, 3]),
        (None, 1.0, [1]),
        ("medical", 0.5, [2]),
    ]
    assert len({space["space"] for space in spaces}) == 3
    assert "x-scions-space" not in answer.headers


def test_one_adapter_and_strength_for_all(ask):
    assert [v[2] for v in _vectors(_post(ask, input=["a", "b"], adapter="medical", strength=2))] == [14, 14]


def test_base64_equals_float(ask):
    texts = ["a bb ccc", "dddd"]
    exact = _vectors(_post(ask, input=texts, dimensions=5))
    packed = _vectors(_post(ask, input=texts, dimensions=5, encoding_format="base64"))
    assert [np.frombuffer(base64.b64decode(row), "<f4").tolist() for row in packed] == exact


def test_written_numbers_are_those_of_the_vectors():
    vectors = np.random.default_rng(0).standard_normal((70, 5)).astype(np.float32)
    vectors[0] = [0, -0.0, 1e-30, 3e38, 1]
    answer = json.loads(asyncio.run(embeddings_body(vectors, "float", {"model": "base"})))
    assert [row["index"] for row in answer["data"]] == list(range(70))
    assert [row["embedding"] for row in answer["data"]] == vectors.tolist()


def test_dimensions_cut_and_scale(ask):
    vector = np.array(_vectors(_post(ask, input="aaa", dimensions=2))[0])
    assert vector == pytest.approx(np.array([3, 1]) / np.sqrt(10))
    whole = _post(ask, input="aaa").json()["scions"]["spaces"][0]["space"]
    cut = _post(ask, input="aaa", dimensions=2).json()["scions"]["spaces"][0]["space"]
    assert whole != cut


def test_texts_that_are_too_long_are_cut_and_counted(ask):
    body = _post(ask, input=["a " * 17, "a", "a " * 3000, " " * 3000 + "bb"]).json()
    assert body["scions"]["truncated"] == 2
    assert [row["embedding"][:2] for row in body["data"]] == [[16, 16], [1, 1], [16, 16], [2, 1]]


def test_a_prompt_by_name(ask):
    assert _vectors(_post(ask, input="a", prompt="query"))[0][1] == 2


def test_an_adapters_own_prompts_and_length_go_before_the_bases(ask, write):
    write("short", 1.0, max_length=3, prompts={"query": "find this: ", "own": "own "})
    body = _post(ask, input=["a b c d e"] * 2, adapter=["short", None], prompt="query").json()
    assert [row["embedding"][:2] for row in body["data"]] == [[4 + 5 + 1, 3], [1 + 5, 6]]
    assert body["scions"]["truncated"] == 1
    assert _vectors(_post(ask, input="a", adapter="short", prompt="own"))[0][1] == 2
    assert _post(ask, input=["a", "b"], adapter=["short", None], prompt="own").status_code == 400


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"model": "base"}, "input", "is missing"),
        ({"input": "a", "model": "base", "modle": 1}, "modle", "is no field"),
        ({"input": ""}, "input", "row 0: is empty"),
        ({"input": []}, "input", "empty array"),
        ({"input": ["a", ""]}, "input", "row 1: is empty"),
        ({"input": ["a", 1]}, "input", "row 1: expected a string like row 0, found another number"),
        ({"input": [1, "a"]}, "input", "row 0: expected token ids"),
        ({"input": [[1], "a"]}, "input", "row 1: expected a string or an array of token ids, found a string"),
        ({"input": [[1, None]]}, "input", "found null"),
        ({"input": [True]}, "input", "found a truth value"),
        ({"input": [[1, -2]]}, "input", "row 0: expected token ids"),
        ({"input": {"text": "a"}}, "input", "found an object"),
        ({"input": [1, 100]}, "input", "token id 100"),
        ({"input": [1] * 17}, "input", "17 token ids, the base reads at most 16"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"input": "a", "dimensions": 9}, "dimensions", "9, but the base gives 8"),
        ({"input": "a", "dimensions": "2"}, "dimensions", "valid integer"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "strength": 11}, "strength", "10"),
        ({"input": "a", "strength": True}, "strength", "valid number"),
        ({"input": ["a", "b"], "strength": [1]}, "strength", "1 entries and input has 2 rows"),
        ({"input": ["a", "b"], "adapter": ["legal"]}, "adapter", "1 entries and input has 2 rows"),
        ({"input": "a", "model": "legal", "adapter": "medical"}, "adapter", "names an adapter already"),
        ({"input": "a", "prompt": "passage"}, "prompt", "none of that name for row 0; the base has 'query'"),
        ({"input": [1], "prompt": "query"}, "prompt", "token ids already"),
    ],
)
def test_what_is_wrong_is_named(ask, body, param, words):
    answer = ask("POST", URL, json={"model": "base", **body})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"input": "a", "model": "base"', b"\xff\xfe", b'{"input":"\\ud800","model":"base"}',
     b'{"input": "a", "model": "base", "strength": NaN}', b"[" * 100_000, b'{"\\ud800": 1}'],
)  # fmt: skip
def test_bodies_that_are_no_requests(ask, content):
    answer = ask("POST", URL, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_only_json_is_read(ask):
    answer = ask("POST", URL, content=b'{"input": "a", "model": "base"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "wrong_content_type")


@pytest.mark.parametrize("model", ["text-embedding-3-small", "legal@", "legal@000000000000", "base:", "base:nobody"])
def test_an_unknown_model_is_not_found(ask, model):
    answer = _post(ask, input="a", model=model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_limits(ask):
    rows = _post(ask, input=["a"] * 3, limits={"max_rows": 2})
    tokens = _post(ask, input=["a a", "a a"], limits={"max_tokens": 3})
    body = _post(ask, input="a" * 2000, limits={"max_body": 1000})
    adapters = _post(ask, input=["a", "b"], adapter=["legal", "medical"], limits={"max_adapters": 1})
    assert [r.status_code for r in (rows, tokens, body, adapters)] == [413] * 4
    assert "3 rows, at most 2" in rows.json()["error"]["message"]
    assert "4 tokens, at most 3" in tokens.json()["error"]["message"]
    assert "more than 1000 bytes" in body.json()["error"]["message"]
    assert "2 adapters" in adapters.json()["error"]["message"]


def test_a_body_of_unknown_length_is_bounded_too(ask):
    async def chunks():
        for _ in range(20):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    assert ask("POST", URL, content=chunks(), headers=headers, limits={"max_body": 1000}).status_code == 413


def test_other_paths_and_methods_answer_in_the_same_shape(ask):
    missing, wrong = ask("GET", "/v1/nothing"), ask("GET", URL)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_a_damaged_adapter_fails_its_own_requests_only(ask, root):
    (root / "legal" / "adapter_model.safetensors").write_text("{")
    answer = _post(ask, input="a", model="legal")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "adapter_unusable")
    assert "adapter 'legal'" in error["message"]
    assert "legal/adapter_model.safetensors: is cut short" in error["message"]
    assert str(root) not in error["message"]
    assert _vectors(_post(ask, input="a", model="medical"))[0][2] == 7


def test_vectors_that_are_no_numbers_are_an_error_of_the_request(ask, write):
    write("wild", float("1e39"))
    answer = _post(ask, input=["a", "b"], adapter=[None, "wild"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "not_finite")
    assert "input[1]" in answer.json()["error"]["message"]
