"""Errors of a row go to its client, with the row's number in that client's request."""

from __future__ import annotations

import asyncio

import pytest

from scions.errors import UsageError

URL = "/v1/embeddings"
BAD = 13


@pytest.fixture
def picky(encoder, monkeypatch):
    """Refuse batches as `RowEngine` does, by the row's place in the batch."""
    encode = encoder.encode_rows
    calls = []

    def checked(ids, adapters, strengths):
        encoder.open.wait(20)
        calls.append(len(ids))
        for row, tokens in enumerate(ids, 1):
            if BAD in tokens:
                raise UsageError(f"row {row} has no tokens")
        return encode(ids, adapters, strengths)

    monkeypatch.setattr(encoder, "encode_rows", checked)
    return calls


def _together(session, encoder, *inputs, **limits):
    """Requests whose rows are all queued before the first is encoded."""

    async def steps(client, service):
        encoder.open.clear()
        sent = [asyncio.ensure_future(client.post(URL, json={"model": "base", "input": rows})) for rows in inputs]
        while service.batcher.rows < sum(map(len, inputs)) or service.batcher.arriving:
            await asyncio.sleep(0.001)
        encoder.open.set()
        return await asyncio.gather(*sent)

    return session(steps, **limits)


def test_a_bad_row_fails_its_own_request_by_its_own_number(session, encoder, picky):
    bad = ["a", "bb", "a" * BAD, "dddd"]
    others = [["w" * (n + 1)] * 6 for n in range(3)]
    first, *good = _together(session, encoder, bad, *others)
    assert first.status_code == 422
    assert first.json()["error"] == {
        "message": "input[2]: has no tokens", "type": "invalid_request_error", "param": "input", "code": "not_encoded",
    }  # fmt: skip
    assert [answer.status_code for answer in good] == [200] * 3
    assert [answer.json()["data"][5]["embedding"][0] for answer in good] == [1, 2, 3]


def test_two_bad_requests_in_a_batch_get_each_its_own(session, encoder, picky):
    first, second, good = _together(session, encoder, ["a"] * 3 + ["a" * BAD], ["a" * BAD, "b"], ["c"] * 5)
    assert first.json()["error"]["message"].startswith("input[3]: ")
    assert second.json()["error"]["message"].startswith("input[0]: ")
    assert good.status_code == 200


def test_a_row_of_a_later_batch_keeps_its_number(session, encoder, picky):
    bad, good = _together(session, encoder, ["a"] * 90 + ["a" * BAD] + ["a"] * 9, ["b"] * 100, batch_tokens=16)
    assert (bad.status_code, good.status_code) == (422, 200)
    assert bad.json()["error"]["message"].startswith("input[90]: ")


def test_finding_the_row_is_quick(session, encoder, picky):
    rows = ["a"] * 512
    rows[300] = "a" * BAD
    (bad,) = _together(session, encoder, rows)
    assert bad.json()["error"]["message"].startswith("input[300]: ")
    assert len(picky) < 30


def test_a_text_without_tokens_reaches_no_batch(session, encoder, monkeypatch):
    tokenize = encoder.tokenize_rows

    def bare(texts, prompt="", max_length=None):
        ids, cut = tokenize(texts, prompt, max_length)
        return [[] if text == " " else row for text, row in zip(texts, ids, strict=True)], cut

    monkeypatch.setattr(encoder, "tokenize_rows", bare)

    async def steps(client, service):
        return await client.post(URL, json={"model": "base", "input": ["a", " ", "b"]})

    answer = session(steps)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "input[1]: has no tokens.")
    assert len(encoder.batches) == 1  # the warm-up
