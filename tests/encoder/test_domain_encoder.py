"""The face of the engine: sentence-transformers' interface, and what is refused."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from scions import BottleneckConfig, DomainEncoder
from scions.encoder import load_encoder, space_of, tokenization
from scions.errors import AdapterError, ScionsError, UsageError
from scions.store import load_base

TEXTS = ["the court and the seller", "a pump of the engine", "fever", "the doctor in trial shall claim damages"]
NAMES = ["legal", None, "medical", "base"]


@pytest.fixture
def domains(tiny_base, publish_adapter) -> DomainEncoder:
    publish_adapter("legal", seed=1, max_length=64)
    publish_adapter("medical", BottleneckConfig(rank=5), seed=2, max_length=64)
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    encoder.load_adapter("legal")
    encoder.load_adapter("medical")
    return encoder


def test_it_is_a_sentence_transformer(domains, encoder):
    assert isinstance(domains, SentenceTransformer)
    assert domains.get_embedding_dimension() == 32
    np.testing.assert_allclose(domains.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    assert domains.encode("fever").shape == (32,)
    assert domains.encode([]).shape == (0, 32)
    assert domains.encode(tuple(TEXTS)).shape == domains.encode(np.array(TEXTS)).shape == (4, 32)
    similar = domains.similarity(domains.encode(TEXTS[:2]), domains.encode(TEXTS))
    assert similar.shape == (2, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"normalize_embeddings": True, "truncate_dim": 7},
        {"truncate_dim": 5},
        {"batch_size": 1},
        {"precision": "ubinary"},
        {"prompt": "the seller "},
        {"prompt_name": "query"},
        {"show_progress_bar": False, "device": "cpu"},
    ],
)
def test_options_do_what_they_do_there(tiny_base, options):
    prompts = {"query": "the court ", "document": "a pump "}
    plain = load_base(tiny_base, device="cpu", prompts=prompts)
    ours = DomainEncoder(tiny_base, dtype="float32", device="cpu", prompts=prompts)
    for method in ("encode", "encode_query", "encode_document"):
        for inputs in (TEXTS, TEXTS[0]):
            found, expected = (getattr(model, method)(inputs, **options) for model in (ours, plain))
            assert type(found) is type(expected)
            if isinstance(found, list):
                found, expected = torch.stack(found), torch.stack(expected)
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)
    assert np.abs(ours.encode_query(TEXTS) - ours.encode_document(TEXTS)).max() > 0.01


def test_truncation_and_default_prompt_of_the_model_itself(tiny_base):
    options = {"prompts": {"query": "the court "}, "default_prompt_name": "query", "truncate_dim": 6, "device": "cpu"}
    ours, plain = DomainEncoder(tiny_base, dtype="float32", **options), load_base(tiny_base, **options)
    np.testing.assert_allclose(ours.encode(TEXTS), plain.encode(TEXTS), atol=1e-5)
    with ours.truncate_embeddings(3):
        assert ours.encode(TEXTS).shape == (4, 3)


def test_tensors_can_be_trained_on(domains):
    vectors = domains.encode(TEXTS, convert_to_tensor=True, adapter=NAMES)
    weight = torch.nn.Parameter(torch.ones(32))
    (vectors * weight).sum().backward()
    assert weight.grad is not None


def test_semantic_search(domains):
    from sentence_transformers.util import semantic_search

    corpus = domains.encode_document(TEXTS, convert_to_tensor=True, adapter="legal")
    hits = semantic_search(domains.encode_query(TEXTS, convert_to_tensor=True, adapter="legal"), corpus, top_k=1)
    assert [hit[0]["corpus_id"] for hit in hits] == [0, 1, 2, 3]


def test_an_evaluator_takes_it(domains, encoder):
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    evaluator = EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], [0.1, 0.5, 0.4, 0.9])
    assert evaluator(domains) == pytest.approx(evaluator(encoder), abs=1e-4)


def test_set_adapter_is_what_is_used_where_nothing_is_said(domains):
    base, legal = domains.encode(TEXTS), domains.encode(TEXTS, adapter="legal")
    assert domains.active_adapters() == []
    domains.set_adapter("legal")
    assert domains.active_adapters() == ["legal"]
    np.testing.assert_array_equal(domains.encode(TEXTS), legal)
    np.testing.assert_array_equal(domains.encode(TEXTS, adapter=None), base)
    np.testing.assert_array_equal(domains.encode(TEXTS, adapter="base"), base)
    domains.delete_adapter("legal")
    with pytest.raises(AdapterError, match=r"no adapter 'legal' is loaded\. Loaded: medical"):
        domains.encode(TEXTS)
    domains.set_adapter(None)
    np.testing.assert_array_equal(domains.encode(TEXTS), base)


def test_one_answer_a_row(domains):
    mixed = domains.encode(TEXTS, adapter=NAMES, strength=[1.0, 0.3, 0.5, 1.0])
    np.testing.assert_allclose(mixed[0], domains.encode(TEXTS[0], adapter="legal"), atol=1e-5)
    np.testing.assert_allclose(mixed[1], domains.encode(TEXTS[1]), atol=1e-5)
    np.testing.assert_allclose(mixed[2], domains.encode(TEXTS[2], adapter="medical", strength=0.5), atol=1e-5)
    array = domains.encode(TEXTS, adapter=np.array(["legal"] * 4), strength=np.array([0.5] * 4))
    np.testing.assert_allclose(array, domains.encode(TEXTS, adapter="legal", strength=0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adapter": "lgeal"}, "no adapter 'lgeal' is loaded. Did you mean 'legal'.*Loaded: legal, medical"),
        ({"adapter": ["legal", "other", None, None]}, "no adapter 'other' is loaded.*Loaded: legal, medical"),
        ({"adapter": ["legal", None]}, "adapter has 2 entries for 4 rows"),
        ({"adapter": 3}, "adapter is a int"),
        ({"adapter": [1, 2, 3, 4]}, "adapter 1 is a int"),
        ({"strength": [1.0] * 5}, "strength has 5 entries for 4 rows"),
        ({"strength": float("nan")}, "strength of row 1 is nan"),
        ({"strength": [1.0, 1.0, "1", 1.0]}, "strength of row 3 is '1'"),
        ({"adapters": "legal"}, "no adapters;.*adapter, strength"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"truncate_dim": 0}, "truncate_dim must be at least 1"),
        ({"precision": "int4"}, "precision 'int4' is unknown; choose from float32"),
        ({"adapter": "legal", "output_value": "token_embeddings"}, "output_value='token_embeddings'.*bare base"),
        ({"adapter": "legal", "device": ["cpu", "cpu"]}, "several processes.*bare base"),
        ({"adapter": "legal", "processing_kwargs": {}}, "processing_kwargs.*bare base"),
    ],
)
def test_what_is_refused(domains, arguments, message):
    with pytest.raises(ScionsError, match=message):
        domains.encode(TEXTS, **arguments)


def test_rows_that_are_no_texts(domains):
    with pytest.raises(UsageError, match="row 2 is None"):
        domains.encode(["fever", None])
    with pytest.raises(UsageError, match="row 1 is nan"):
        domains.encode([float("nan")])
    with pytest.raises(UsageError, match="row 1, a tuple and no text"):
        domains.encode([("fever", "court")], adapter="legal")


def test_token_embeddings_of_the_bare_base_are_the_parents(domains, encoder):
    found = domains.encode(TEXTS, output_value="token_embeddings")
    expected = encoder.encode(TEXTS, output_value="token_embeddings")
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_an_adapters_own_prompts_and_length(tiny_base, publish_adapter):
    publish_adapter("legal", prompts={"query": "the court "}, max_length=8)
    long = ["a pump of the engine and a pump of the engine and fever in trial"] * 2
    alone = load_encoder("legal", device="cpu")
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu", prompts={"query": "data "})
    encoder.load_adapter("legal")
    found = encoder.encode_query(long, adapter=["legal", None])
    np.testing.assert_allclose(found[0], alone.encode_query(long)[0], atol=1e-5)
    plain = load_base(tiny_base, device="cpu", prompts={"query": "data "})
    np.testing.assert_allclose(found[1], plain.encode_query(long)[1], atol=1e-5)
    given = encoder.encode_query(long, adapter="legal", prompt="fever ")
    np.testing.assert_allclose(given, alone.encode_query(long, prompt="fever "), atol=1e-5)
    encoder.max_seq_length = alone.max_seq_length = 20
    np.testing.assert_allclose(encoder.encode(long, adapter="legal"), alone.encode(long), atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_rows_of_tokens(tiny_model, publish_on, kind):
    publish_on(tiny_model(kind), "legal", BottleneckConfig(rank=3))
    encoder = DomainEncoder(tiny_model(kind), dtype="float32", device="cpu")
    encoder.load_adapter("legal")
    ids, cut = encoder.tokenize_rows([*TEXTS, "fever " * 100], "the court ")
    assert cut == 1
    assert [len(row) for row in ids][-1] == 64
    texts = [f"the court {text}" for text in TEXTS]
    assert ids[:4] == encoder.tokenizer(texts)["input_ids"]
    found = encoder.encode_rows(ids[:4], ["legal", None, "legal", None], [1.0, 1.0, 0.5, 1.0])
    assert (found.dtype, found.shape) == (np.float32, (4, 32))
    expected = encoder.encode(texts, adapter=["legal", None, "legal", None], strength=[1.0, 1.0, 0.5, 1.0])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert encoder.tokenize_rows(["fever " * 100], max_length=10)[0][0] == ids[4][:1] + [ids[4][5]] * 8 + ids[4][-1:]
    assert encoder.encode_rows([], [], []).shape == (0, 32)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[2, 5, 3], []], "row 2 has no tokens"),
        ([[2, 5, 3], [2, 999999, 3]], "row 2: token id 999999, but the base's run from 0 to"),
        ([[2, -1, 3]], "row 1: token id -1"),
        ([[2, 1.5, 3]], "row 1: token ids are whole numbers"),
        ([[2] * 65], "row 1 has 65 tokens, the base has positions for 64"),
    ],
)
def test_rows_of_tokens_that_cannot_be(domains, rows, message):
    with pytest.raises(UsageError, match=message):
        domains.encode_rows(rows, [None] * len(rows), [1.0] * len(rows))


def test_rows_of_tokens_need_lists_of_one_length(domains):
    with pytest.raises(UsageError, match="adapter has 1 entries for 2 rows"):
        domains.encode_rows([[2, 3], [2, 3]], [None], [1.0, 1.0])


def test_a_model_left_in_training_mode_encodes_without_dropout(domains):
    expected = domains.encode(TEXTS, adapter=NAMES)
    domains.train()
    np.testing.assert_array_equal(domains.encode(TEXTS, adapter=NAMES), expected)


def test_space(domains, tiny_base, adapters_aside):
    base = space_of(load_base(tiny_base, device="cpu")).fingerprint
    legal = space_of(load_encoder("legal", device="cpu"), adapters_aside / "legal").fingerprint
    assert domains.space() == domains.space("legal", 0.0) == base
    assert domains.space("legal") == legal
    assert len({base, legal, domains.space("legal", 0.5), domains.space("medical"), domains.space(None, 1.0, 8)}) == 5
    assert domains.space(truncate_dim=100) == base


def test_saving_gives_the_plain_base(domains, tiny_base, tmp_path):
    domains.set_adapter("legal")
    domains.save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert type(plain) is SentenceTransformer
    np.testing.assert_array_equal(plain.encode(TEXTS), load_base(tiny_base, device="cpu").encode(TEXTS))


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_copies_and_pickles_work(tiny_model, publish_on, kind):
    publish_on(tiny_model(kind), "legal", BottleneckConfig(rank=3))
    encoder = DomainEncoder(tiny_model(kind), dtype="float32", device="cpu", deterministic=True)
    encoder.load_adapter("legal")
    expected = encoder.encode(TEXTS, adapter="legal")
    for again in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(again.encode(TEXTS, adapter="legal"), expected)
        again.delete_adapter("legal")
    assert "legal" in encoder.adapters


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_moving_takes_the_adapters_along(tiny_model, publish_on, kind):
    publish_on(tiny_model(kind), "legal", BottleneckConfig(rank=3))
    encoder = DomainEncoder(tiny_model(kind), dtype="float32", device="cpu")
    encoder.load_adapter("legal")
    expected = encoder.encode(TEXTS, adapter="legal")
    encoder.to("meta")
    if kind == "bert":
        assert encoder.adapters["legal"].layers[0].attention.down.device.type == "meta"
        assert encoder.adapters["legal"].layers[0].attention.gamma.device.type == "meta"
    other = DomainEncoder(tiny_model(kind), dtype="float32", device="cpu")
    other.load_adapter("legal")
    other.double().float()
    np.testing.assert_allclose(other.encode(TEXTS, adapter="legal"), expected, atol=1e-5)


def test_a_pooling_that_leaves_the_prompt_out(tiny_base, publish_adapter):
    publish_adapter("legal", max_length=64)
    alone = load_encoder("legal", device="cpu")
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    encoder.set_pooling_include_prompt(False)
    alone.set_pooling_include_prompt(False)
    encoder = DomainEncoder(modules=list(encoder), dtype="float32", device="cpu")
    assert encoder.engine == "peft"
    encoder.load_adapter("legal")
    found = encoder.encode(TEXTS, adapter="legal", prompt="the court ")
    np.testing.assert_allclose(found, alone.encode(TEXTS, prompt="the court "), atol=1e-5)
    alone.set_pooling_include_prompt(True)
    assert np.abs(found - alone.encode(TEXTS, prompt="the court ")).max() > 1e-3


@pytest.mark.parametrize("method", ["add_adapter", "enable_adapters", "disable_adapters", "get_adapter_state_dict"])
def test_adapters_inside_the_model_are_refused(domains, method):
    with pytest.raises(UsageError, match="keeps adapters beside the model: load_adapter"):
        getattr(domains, method)()


def test_a_base_that_cannot_be_one(tiny_base, tmp_path):
    with pytest.raises(ScionsError, match="no such folder"):
        DomainEncoder("./nowhere")
    with pytest.raises(UsageError, match="backend 'onnx'"):
        DomainEncoder(tiny_base, backend="onnx")
    with pytest.raises(UsageError, match="dtype 'int8' is not supported; choose from float32, bfloat16"):
        DomainEncoder(tiny_base, dtype="int8")
    adapted = load_base(tiny_base, device="cpu")
    adapted.add_adapter(BottleneckConfig(rank=2), "legal")
    adapted.save_pretrained(str(tmp_path / "adapted"), create_model_card=False)
    with pytest.raises(ScionsError, match="has a PEFT adapter inside"):
        DomainEncoder(tmp_path / "adapted", device="cpu")


def test_a_base_without_transformer_has_no_adapters_but_encodes(tiny_base, publish_adapter):
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = StaticEmbedding(load_base(tiny_base, device="cpu").tokenizer, embedding_dim=8)
    encoder = DomainEncoder(modules=[words], device="cpu")
    plain = SentenceTransformer(modules=[words], device="cpu")
    assert encoder.engine == "peft"
    np.testing.assert_allclose(encoder.encode(TEXTS), plain.encode(TEXTS), atol=1e-2)
    publish_adapter("legal")
    with pytest.raises(ScionsError, match=r"'legal' was trained on .* cannot be loaded onto the model in memory"):
        encoder.load_adapter("legal")
    with pytest.raises(AdapterError, match="StaticEmbedding"):
        encoder.encode_rows([[2, 3]], [None], [1.0])


def test_bf16_on_the_peft_path_gives_float32(tiny_model):
    encoder = DomainEncoder(tiny_model("modernbert"), dtype="bfloat16", device="cpu")
    vectors = encoder.encode(TEXTS)
    expected = load_base(tiny_model("modernbert"), device="cpu").encode(TEXTS)
    assert vectors.dtype == np.float32
    assert (vectors * expected).sum(1).min() > 0.999


def test_float32_on_its_own_where_there_is_no_bf16(tiny_base, monkeypatch):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("scions.engine.precision.has_bf16", lambda device, native=native: native)
        assert DomainEncoder(tiny_base, device="cpu").compute_dtype == dtype


def test_strengths_of_numpy(domains):
    expected = domains.encode(TEXTS, adapter="legal", strength=0.5)
    for strength in (np.float32(0.5), [np.float32(0.5)] * 4, np.full(4, 0.5, dtype=np.float16)):
        np.testing.assert_array_equal(domains.encode(TEXTS, adapter="legal", strength=strength), expected)
    whole = domains.encode(TEXTS, adapter="legal", strength=np.int64(1))
    np.testing.assert_array_equal(whole, domains.encode(TEXTS, adapter="legal"))
    with pytest.raises(UsageError, match="strength of row 1"):
        domains.encode(TEXTS, adapter="legal", strength=[np.float32("nan")] * 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torchs_default_precision_changes_nothing(tiny_base, publish_adapter, dtype):
    publish_adapter("legal", max_length=64)
    encoder = DomainEncoder(tiny_base, dtype=dtype, device="cpu")
    encoder.load_adapter("legal")
    expected = encoder.encode(TEXTS, adapter="legal", strength=[1.0, 0.3, 2.0, 0.0])
    torch.set_default_dtype(torch.float64)
    try:
        found = encoder.encode(TEXTS, adapter="legal", strength=[1.0, 0.3, 2.0, 0.0])
        assert encoder.encode([]).dtype == found.dtype == np.float32
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)


def test_a_length_that_another_thread_tokenises_with_is_not_taken_for_the_bases(tiny_model, monkeypatch):
    encoder = DomainEncoder(tiny_model("modernbert"), dtype="float32", device="cpu")
    monkeypatch.setattr(tokenization, "only_fast", lambda module: False)
    text, plain, found = "the court and the seller", encoder.preprocess, []
    other = threading.Thread(target=lambda: found.append(encoder.tokenize_rows([text])))

    def slow(*arguments, **options):
        if other.ident is None:
            other.start()
            other.join(0.3)  # until it waits
        return plain(*arguments, **options)

    monkeypatch.setattr(encoder, "preprocess", slow)
    (short,), cut = encoder.tokenize_rows([text], max_length=4)
    other.join()
    assert (len(short), cut) == (4, 1)
    (whole,), cut = found[0]
    assert len(whole) > 4
    assert cut == 0


def test_texts_beyond_the_positions_are_cut_where_the_base_states_two_too_many(tiny_model, publish_on):
    # As RoBERTa's checkpoints do: of 66 positions some are not for tokens.
    base = tiny_model("roberta")
    publish_on(base, "legal", BottleneckConfig(rank=3), max_length=66)
    encoder = DomainEncoder(base, dtype="float32")
    encoder.load_adapter("legal")
    encoder.max_seq_length = 66
    for adapter in (None, "legal"):
        one, other = encoder.encode(["court " * 70, "court " * 90], adapter=adapter)
        assert np.allclose(one, other, atol=1e-5)
