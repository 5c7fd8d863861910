"""The server around a real encoder with a tiny base."""

from __future__ import annotations

import asyncio
import shutil

import numpy as np
import pytest

from scions.encoder.domain_encoder import DomainEncoder
from scions.serving import BaseInfo, Settings, build

TEXTS = ["the seller shall pay damages", "fever of the patient", "a", "engine valve " * 20]


@pytest.fixture(autouse=True)
def _few_threads(one_thread: None) -> None:
    pass


@pytest.fixture
def real(tiny_base, publish_adapter, adapters_aside):
    publish_adapter("legal", seed=1)
    publish_adapter("medical", seed=2)
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    return encoder, build(encoder, BaseInfo.of(encoder), encoder.read_adapter, adapters_aside, settings=Settings())


def test_vectors_and_spaces_are_the_encoders_own(real, play, adapters_aside):
    encoder, app = real
    names, strengths = ["legal", None, "medical", "legal"], [1.0, 1.0, 0.5, 0.0]

    async def steps(client, service):
        body = {"model": "base", "input": TEXTS, "adapter": names, "strength": strengths}
        short = {"model": "legal", "input": TEXTS, "dimensions": 8}
        return [(await client.post("/v1/embeddings", json=content)).json() for content in (body, short)]

    mixed, short = play(app, steps)
    for name in ("legal", "medical"):
        encoder.load_adapter(adapters_aside / name)
    expected = encoder.encode(TEXTS, adapter=names, strength=strengths)
    assert np.allclose([row["embedding"] for row in mixed["data"]], expected, atol=1e-5)
    spaces = {row: space["space"] for space in mixed["scions"]["spaces"] for row in space["rows"]}
    assert [spaces[row] for row in range(4)] == [encoder.space(*pair) for pair in zip(names, strengths, strict=True)]
    assert mixed["scions"]["spaces"][0]["version"] == encoder.adapters["legal"].version
    cut = encoder.encode(TEXTS, adapter="legal", truncate_dim=8, normalize_embeddings=True)
    assert np.allclose([row["embedding"] for row in short["data"]], cut, atol=1e-5)
    assert short["scions"]["spaces"][0]["space"] == encoder.space("legal", truncate_dim=8)
    assert short["scions"]["truncated"] == 1


def test_token_ids_of_its_own_tokenizer(real, play):
    encoder, app = real
    ids = [encoder.tokenizer(text)["input_ids"] for text in TEXTS[:3]]

    async def steps(client, service):
        bodies = [{"model": "base", "input": rows} for rows in (TEXTS[:3], ids, [[len(encoder.tokenizer)]])]
        return [await client.post("/v1/embeddings", json=body) for body in bodies]

    texts, tokens, beyond = play(app, steps)
    assert tokens.json()["data"] == texts.json()["data"]
    assert beyond.status_code == 400


def test_an_adapter_of_another_base_or_damaged_is_refused_and_others_are_not(
    real, play, adapters_aside, publish_adapter
):
    from dataclasses import replace

    from scions.store import Manifest

    _, app = real
    folder, _ = publish_adapter("foreign")
    manifest = Manifest.read(folder)
    other = replace(manifest, base=replace(manifest.base, id="org/other", weights_sha256="0" * 64))
    (folder / "scions.json").write_text(other.to_json())
    broken = adapters_aside / "broken"
    shutil.copytree(adapters_aside / "legal", broken)
    content = (broken / "adapter_model.safetensors").read_bytes()
    (broken / "adapter_model.safetensors").write_bytes(content[: len(content) // 2])

    async def steps(client, service):
        added = [await client.post("/v1/adapters", json={"folder": name}) for name in ("foreign", "broken")]
        good = await client.post("/v1/embeddings", json={"model": "legal", "input": "a"})
        return *added, good

    foreign, damaged, good = play(app, steps)
    assert foreign.status_code == damaged.status_code == 409
    assert "org/other" in foreign.json()["error"]["message"]
    assert "is cut short" in damaged.json()["error"]["message"]
    assert str(adapters_aside) not in foreign.text + damaged.text
    assert good.status_code == 200


def test_clients_share_the_encoder_while_adapters_come_and_go(real, play, adapters_aside):
    encoder, app = real
    shutil.copytree(adapters_aside / "medical", adapters_aside / "legal-2")
    expected = {
        name: encoder.encode(TEXTS[0], adapter=encoder.load_adapter(adapters_aside / name))
        for name in ("legal", "medical")
    }

    async def steps(client, service):
        stop = asyncio.Event()
        seen = []

        async def use(name):
            while not stop.is_set():
                body = {"model": "base", "input": [TEXTS[0], TEXTS[1]], "adapter": [name, None]}
                answer = await client.post("/v1/embeddings", json=body)
                seen.append((name, answer.status_code, answer.json()["data"][0]["embedding"]))

        using = [asyncio.ensure_future(use(name)) for name in ("legal", "medical", "legal")]
        for _ in range(10):
            added = await client.post("/v1/adapters", json={"folder": "legal-2", "name": "legal"})
            await asyncio.sleep(0.01)
            await client.delete(f"/v1/adapters/legal@{added.json()['version']}")
        stop.set()
        await asyncio.gather(*using)
        return seen

    seen = play(app, steps)
    assert {status for _, status, _ in seen} == {200}
    for name, _, vector in seen:
        allowed = [expected[name]] + ([expected["medical"]] if name == "legal" else [])
        assert any(np.allclose(vector, other, atol=1e-5) for other in allowed)


@pytest.mark.parametrize("stated", [10**30, 66])  # 66: what sentence-transformers makes of it, two more than there are
def test_a_base_whose_tokenizer_knows_no_limit(play, tiny_model, publish_adapter, adapters_aside, stated):
    folder = tiny_model("roberta")
    publish_adapter("legal", on=folder, max_length=stated)
    encoder = DomainEncoder(folder, dtype="float32", device="cpu")
    encoder.max_seq_length = stated
    base_info = BaseInfo.of(encoder)
    assert base_info.max_length == 65  # of its 66 positions, one is the padding's

    async def steps(client, service):
        bodies = [{"model": "base", "input": ["fever " * 300, "a"], "adapter": ["legal", None]},
                  {"model": "base", "input": ["fever " * 300]},
                  {"model": "base", "input": [[5] * 65]},
                  {"model": "base", "input": [[5], [5] * 66]}]  # fmt: skip
        return [await client.post("/v1/embeddings", json=body) for body in bodies]

    mixed, base, fits, long = play(build(encoder, base_info, encoder.read_adapter, adapters_aside), steps)
    assert [answer.status_code for answer in (mixed, base, fits, long)] == [200, 200, 200, 400]
    assert [answer.json()["scions"]["truncated"] for answer in (mixed, base)] == [1, 1]
    assert base.json()["usage"]["prompt_tokens"] == 65
    assert long.json()["error"]["message"] == "input[1]: 66 token ids, the base reads at most 65."


def test_the_length_of_a_base_without_a_table_of_positions(tiny_model):
    encoder = DomainEncoder(tiny_model("modernbert"), dtype="float32", device="cpu")
    assert BaseInfo.of(encoder).max_length == 64
    encoder.max_seq_length = 10**30
    assert BaseInfo.of(encoder).max_length == 66


def test_a_query_side_adapter_answers_in_the_bases_space_and_leaves_documents_alone(
    play, tiny_base, publish_adapter, adapters_aside
):
    publish_adapter("legal-q", query_side=True, format_version=2)
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    app = build(encoder, BaseInfo.of(encoder), encoder.read_adapter, adapters_aside, settings=Settings())

    async def steps(client, service):
        bodies = [{"model": "base:legal-q"}, {"model": "legal-q", "prompt": "document"}, {"model": "base"}]
        return [(await client.post("/v1/embeddings", json=body | {"input": TEXTS[:3]})).json() for body in bodies]

    queries, documents, base = (
        (np.array([row["embedding"] for row in answer["data"]]), answer["scions"]["spaces"][0])
        for answer in play(app, steps)
    )
    assert queries[1]["space"] == documents[1]["space"] == base[1]["space"] == encoder.space()
    assert (queries[1]["adapter"], documents[1]["adapter"]) == ("legal-q", None)
    assert np.allclose(documents[0], base[0], atol=1e-6)
    assert np.abs(queries[0] - base[0]).max() > 1e-2
