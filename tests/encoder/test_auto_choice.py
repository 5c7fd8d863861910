"""The adapter is chosen by the texts: once a call, or for each row."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from scions import DomainEncoder
from scions.encoder.row_engine import RowEngine
from scions.errors import AdapterError, UsageError
from scions.routing.sample import SAMPLE_SIZE, sample_rows
from scions.store import DomainStatistics

LAW, FEVER, ENGINE, OTHER = "court", "fever", "engine", "the model"
ADAPTERS = {"legal": LAW, "medical": FEVER, "motors": ENGINE}


@pytest.fixture
def domains(tiny_base, publish_adapter, told_apart) -> DomainEncoder:
    """Three adapters with statistics, and one without."""
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    for seed, (name, word) in enumerate(ADAPTERS.items(), 1):
        publish_adapter(name, seed=seed, domain=told_apart[word])
        encoder.load_adapter(name)
    publish_adapter("imported", seed=9)
    encoder.load_adapter("imported")
    return encoder


@pytest.fixture
def passes(monkeypatch) -> list[tuple[int, int]]:
    """Of each pass through the encoder, rows with an adapter and rows of the bare base."""
    seen = []
    vectors = RowEngine.encode

    def spy(self, ids, adapters, strengths, *rest):
        looked = rest[3] if len(rest) > 3 else None
        bare = [a is None for a in adapters]
        done = 0 if looked is None else len(looked.reusable(ids, bare))
        seen.append((sum(a is not None for a in adapters), sum(a is None for a in adapters) - done))
        return vectors(self, ids, adapters, strengths, *rest)

    monkeypatch.setattr(RowEngine, "encode", spy)
    return seen


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_a_collection_goes_to_its_domain(domains, name):
    texts = [ADAPTERS[name]] * 7
    found = domains.route(texts)
    assert found.adapter == name
    assert found.confidence > 0.9
    assert set(found.evidence) == set(ADAPTERS)
    assert found.evidence[name] > 10
    np.testing.assert_allclose(domains.encode(texts, adapter="auto"), domains.encode(texts, adapter=name), atol=1e-6)
    assert domains.route(texts[0]).adapter == name  # a text alone


def test_texts_of_no_domain_go_to_the_base(domains):
    found = domains.route([OTHER] * 3)
    assert found.adapter is None
    assert found.confidence > 0.9
    np.testing.assert_allclose(domains.encode([OTHER], adapter="auto"), domains.encode([OTHER]), atol=1e-6)


def test_a_call_is_one_decision_and_rows_are_one_each(domains):
    texts = [LAW] * 8 + [FEVER, OTHER]
    np.testing.assert_allclose(domains.encode(texts, adapter="auto"), domains.encode(texts, adapter="legal"), atol=1e-6)
    own, strengths = ["legal"] * 8 + ["medical", None], [1.0] * 6 + [0.5, 0.0, 2.0, 1.0]
    found = domains.encode(texts, adapter="auto-rows", strength=strengths)
    np.testing.assert_allclose(found, domains.encode(texts, adapter=own, strength=strengths), atol=1e-5)


def test_at_most_twenty_rows_of_the_base_are_what_it_costs(domains, passes):
    domains.encode([LAW] * 90, adapter="auto")
    assert passes == [(0, SAMPLE_SIZE), (90, 0)]
    passes.clear()
    domains.encode([LAW] * 3, adapter="auto")
    assert passes == [(0, 3), (3, 0)]


def test_what_the_base_gave_for_the_decision_is_not_computed_again(domains, passes):
    domains.encode([OTHER] * 30, adapter="auto")
    assert passes == [(0, SAMPLE_SIZE), (0, 10)]
    passes.clear()
    domains.encode([LAW, OTHER, FEVER, OTHER], adapter="auto-rows")
    assert passes == [(0, 4), (2, 0)]
    passes.clear()
    found = domains.encode([OTHER] * 2, adapter="auto", prompt="the ")  # other tokens: computed
    assert passes == [(0, 2), (0, 2)]
    np.testing.assert_allclose(found, domains.encode([OTHER] * 2, prompt="the "), atol=1e-6)


def test_the_texts_looked_at_are_spread_evenly():
    assert sample_rows(3) == [0, 1, 2]
    assert sample_rows(20) == list(range(20))
    assert sample_rows(21)[0] == 0
    assert sample_rows(2000) == list(range(50, 2000, 100))
    for texts in range(1, 90):
        chosen = sample_rows(texts)
        assert len(set(chosen)) == min(texts, SAMPLE_SIZE)
        assert max(chosen) < texts


def test_prompts_and_lengths_change_nothing_about_the_decision(domains, publish_adapter, told_apart):
    publish_adapter("legal", seed=1, domain=told_apart[LAW], prompts={"query": FEVER * 3 + " "}, max_length=4)
    domains.load_adapter("legal", replace=True)
    for options in ({"prompt": "fever fever fever "}, {"prompt_name": "query"}, {"truncate_dim": 5}):
        found = domains.encode([LAW] * 4, adapter="auto", **options)
        np.testing.assert_allclose(found, domains.encode([LAW] * 4, adapter="legal", **options), atol=1e-6)


def test_queries_and_documents_of_a_query_side_adapter(domains, publish_adapter, told_apart):
    publish_adapter("legal", seed=4, domain=told_apart[LAW], query_side=True, format_version=2)
    domains.load_adapter("legal", replace=True)
    texts = [LAW] * 3
    queries = domains.encode_query(texts, adapter="auto")
    np.testing.assert_allclose(queries, domains.encode_query(texts, adapter="legal"), atol=1e-6)
    documents = domains.encode_document(texts, adapter="auto")
    np.testing.assert_allclose(documents, domains.encode(texts), atol=1e-6)
    for adapter in ("auto", "legal", ["legal"] * 3):
        np.testing.assert_allclose(domains.encode(texts, adapter=adapter, task="document"), documents, atol=1e-6)
    mixed = domains.encode_document([LAW, FEVER], adapter="auto-rows")
    np.testing.assert_allclose(mixed, domains.encode([LAW, FEVER], adapter=[None, "medical"]), atol=1e-6)
    assert np.abs(queries - documents).max() > 0.01


def test_names_to_choose_among(domains):
    assert domains.route([LAW] * 3, adapters=["medical", "motors"]).adapter is None
    assert set(domains.route([LAW], adapters=["legal"]).evidence) == {"legal"}
    assert domains.route([LAW], adapters=[]).adapter is None
    with pytest.raises(AdapterError, match="no adapter 'tax' is loaded"):
        domains.route([LAW], adapters=["tax"])
    with pytest.raises(AdapterError, match="'imported' cannot be chosen by its domain"):
        domains.route([LAW], adapters=["imported"])
    with pytest.raises(UsageError, match="expected a list of names"):
        domains.route([LAW], adapters="legal")


def test_adapters_without_usable_statistics_are_never_chosen(tiny_base, publish_adapter, told_apart, passes):
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    whole = told_apart[LAW]
    wrong = {
        "none": None,
        "short": DomainStatistics(mean=whole.mean[:5], spherical_variance=0.1, n=3),
        "flat": DomainStatistics(mean=whole.mean, spherical_variance=0.0, n=1),
        "wide": DomainStatistics(mean=whole.mean, spherical_variance=1e300, n=3),
        "far": DomainStatistics(mean=[1e300, *whole.mean[1:]], spherical_variance=0.1, n=3),
    }
    for name, domain in wrong.items():
        publish_adapter(f"{name}-one", domain=domain)
        encoder.load_adapter(f"{name}-one")
    found = encoder.route([LAW] * 3)
    assert (found.adapter, found.confidence, found.evidence) == (None, 1.0, {})
    assert passes == []
    for choice in ("auto", "auto-rows"):
        np.testing.assert_allclose(encoder.encode([LAW], adapter=choice), encoder.encode([LAW]), atol=1e-6)
        assert encoder.encode([], adapter=choice).shape == (0, 32)


def test_what_auto_cannot_stand_for(domains):
    with pytest.raises(UsageError, match=r"set_adapter\(encoder.route\(texts\).adapter\)"):
        domains.set_adapter("auto")
    with pytest.raises(UsageError, match="decide anew in every call"):
        domains.set_adapter("auto-rows")
    for wrong in (["legal", "auto"], ["auto-rows", None]):
        with pytest.raises(UsageError, match="for all texts of one call"):
            domains.encode([LAW, FEVER], adapter=wrong)
        with pytest.raises(UsageError, match="for all texts of one call"):
            domains.encode_document([LAW, FEVER], adapter=wrong)
    with pytest.raises(UsageError, match=r"encoder.route\(texts\).adapter"):
        domains.space("auto")
    with pytest.raises(UsageError, match="`output_value='token_embeddings'`: only for the bare base"):
        domains.encode([LAW], adapter="auto", output_value="token_embeddings")
    with pytest.raises(UsageError, match="row 2 is None"):
        domains.encode([LAW, None], adapter="auto")
    with pytest.raises(UsageError, match="no texts to decide by"):
        domains.route([])
    with pytest.raises(UsageError, match="row 2 is a int"):
        domains.route([LAW, 3])
    with pytest.raises(AdapterError, match="reserved"):
        domains.load_adapter("legal", adapter_name="auto-rows")


def test_set_adapter_takes_what_route_says(domains):
    domains.set_adapter(domains.route([FEVER] * 3).adapter)
    assert domains.active_adapters() == ["medical"]
    domains.set_adapter(domains.route([OTHER]).adapter)
    assert domains.active_adapters() == []


def test_a_deleted_adapter_is_forgotten(domains):
    assert domains.route([LAW] * 3).adapter == "legal"
    domains.encode([LAW] * 3, adapter="auto")
    held = domains.delete_adapter("legal")
    left = [weakref.ref(held), weakref.ref(held.domain)]
    del held
    gc.collect()
    assert [one() for one in left] == [None, None]
    found = domains.route([LAW] * 3)
    assert found.adapter is None
    assert "legal" not in found.evidence


def test_the_domains_are_put_together_once_after_each_change(domains, publish_adapter, told_apart):
    first = domains._bank.domains(32)[1]
    domains.route([LAW])
    assert domains._bank.domains(32)[1] is first
    publish_adapter("legal", seed=5, domain=told_apart[FEVER])
    domains.load_adapter("legal", replace=True)
    domains.delete_adapter("medical")
    assert domains._bank.domains(32)[1] is not first
    assert domains.route([FEVER] * 3).adapter == "legal"


def test_deciding_while_others_load_and_delete(domains):
    expected = {name: domains.encode([LAW] * 3, adapter=name) for name in ("legal", None)}
    stop = threading.Event()

    def encode() -> list[str | None]:
        seen = []
        while not stop.is_set():
            found = domains.encode([LAW] * 3, adapter="auto")
            [name] = [name for name, vectors in expected.items() if np.abs(vectors - found).max() < 1e-5]
            seen.append(name)
        return seen

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(encode) for _ in range(3)]
        try:
            for _ in range(40):
                domains.delete_adapter("legal")
                domains.load_adapter("legal")
        finally:
            stop.set()
        seen = [name for worker in workers for name in worker.result()]
    assert set(seen) <= {"legal", None}
    assert "legal" in seen


def test_copies_decide_as_well(domains):
    for again in (copy.deepcopy(domains), pickle.loads(pickle.dumps(domains))):
        assert again.route([LAW] * 3).adapter == "legal"


def test_on_the_peft_path(tiny_model, publish_on):
    base = tiny_model("modernbert")
    encoder = DomainEncoder(base, dtype="float32", device="cpu")
    vectors = encoder.encode([LAW, OTHER], normalize_embeddings=True)
    apart = vectors[0] - vectors[1]
    from scions import BottleneckConfig

    statistics = DomainStatistics(mean=apart.tolist(), spherical_variance=float(apart @ apart) / 60, n=2)
    publish_on(base, "legal", BottleneckConfig(rank=3, placement="parallel"), domain=statistics)
    encoder.load_adapter("legal")
    texts = [LAW, OTHER, LAW]
    assert encoder.engine == "peft"
    assert encoder.route([OTHER] * 4).adapter is None
    found = encoder.encode(texts, adapter="auto-rows")
    decided = [encoder.route([text]).adapter for text in texts]
    np.testing.assert_allclose(found, encoder.encode(texts, adapter=decided), atol=1e-5)
    np.testing.assert_allclose(encoder.encode([OTHER], adapter="auto"), encoder.encode([OTHER]), atol=1e-5)
