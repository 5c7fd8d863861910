"""Adapters chosen by their domains, and the bare base where nothing fits."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import scions
from scions.errors import AdapterError, UsageError
from scions.mixing.select import propose
from scions.routing.domains import Domains, combined
from scions.store import DomainStatistics


def domains(*means: tuple[float, ...], variance: float = 0.01) -> Domains:
    return Domains(tuple("abcdefg"[: len(means)]), np.array(means, dtype=float), variance)


AXES = domains((0.8, 0, 0, 0), (0, 0.8, 0, 0), (0, 0, 0.8, 0))


def test_the_domain_of_the_texts_comes_first():
    found = propose(np.array([[0.1, 1, 0, 0], [0, 1, 0.1, 0]]), AXES)
    assert found.weights == {"b": 1}
    assert found.ranked[0].name == "b"
    assert found.ranked[0].cosine == pytest.approx(0.8)
    assert found.ranked[0].share == pytest.approx(1)


def test_a_soup_of_those_that_a_tenth_of_the_texts_fall_to():
    vectors = np.array([[1.0, 0, 0, 0]] * 5 + [[0, 1.0, 0, 0]] * 14 + [[0, 0, 1.0, 0]])
    found = propose(vectors, domains((0.4, 0.3, 0, 0), (0.3, 0.6, 0, 0), (0.1, 0.1, 0.6, 0)), by="mixture")
    assert found.weights == pytest.approx({"b": 14 / 19, "a": 5 / 19}, abs=0.01)


def test_texts_of_no_domain_do_not_fall_to_the_broadest():
    # A quarter of the texts are of another kind: the broad "b", whose mean is near the origin, gets none of them.
    vectors = np.eye(4)[[0] * 15 + [3] * 5]
    found = propose(vectors, domains((0.9, 0, 0, 0), (0, 0.2, 0, 0)), by="mixture")
    assert found.weights == {"a": 1}


@pytest.mark.parametrize("by", ["mixture", "cosine"])
def test_texts_of_several_domains_get_all_of_them(by):
    # No domain fits texts of which two thirds are others'; each fits its own.
    found = propose(np.eye(4)[[0, 1, 2] * 5], domains((0.9, 0, 0, 0), (0, 0.9, 0, 0), (0, 0, 0.9, 0)), by=by)
    assert found.weights == pytest.approx(dict.fromkeys("abc", 1 / 3))
    assert max(c.evidence for c in found.ranked) < 0


@pytest.mark.parametrize("by", ["mixture", "cosine"])
def test_a_domain_that_hardly_a_text_is_close_to_is_left_out(by):
    vectors = np.eye(4)[[0] * 14 + [1] * 5 + [2]]
    found = propose(vectors, domains((0.9, 0, 0, 0), (0, 0.9, 0, 0), (0, 0, 0.9, 0)), by=by)
    assert set(found.weights) == {"a", "b"}


@pytest.mark.parametrize("by", ["mixture", "cosine"])
def test_a_few_texts_of_a_domain_among_many_of_none_get_the_base(by):
    found = propose(np.eye(4)[[0, 0] + [3] * 8], domains((0.9, 0, 0, 0)), by=by)
    assert found.weights == {}


def test_at_most_so_many():
    vectors = np.eye(4)[[0, 1, 2] * 5]
    many = domains((0.3, 0.1, 0.1, 0), (0.1, 0.3, 0.1, 0), (0.1, 0.1, 0.3, 0))
    assert len(propose(vectors, many).weights) == 3
    assert len(propose(vectors, many, limit=2).weights) == 2
    assert sum(propose(vectors, many, by="cosine", limit=2).weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("by", ["mixture", "cosine"])
def test_the_base_where_nothing_fits(by):
    found = propose(np.array([[0, 0, 0, 1.0], [0.1, 0, 0, 1.0]]), AXES, by=by)
    assert found.weights == {}
    assert found.reason == "100% of the texts fall to none of the adapters' domains"


@pytest.mark.parametrize("vectors", [np.eye(4)[[3, 3]], -np.eye(4)[[0, 1, 2]]], ids=["beside", "against"])
def test_domains_too_broad_to_tell_from_none_are_not_proposed_for_what_is_not_similar(vectors):
    found = propose(vectors, domains((0.01, 0, 0, 0), (0, 0.01, 0, 0), (0, 0, 0.01, 0), variance=1))
    assert found.weights == {}
    assert found.reason == "none of the texts is close to any of the adapters' domains"


def test_statistics_of_a_mixture_pool_within_and_between():
    parts = [
        DomainStatistics(mean=[1.0, 0.0], spherical_variance=0.1, n=10),
        DomainStatistics(mean=[0.0, 1.0], spherical_variance=0.3, n=30),
    ]
    found = combined(parts, [1, 1])
    assert found.mean == [0.5, 0.5]
    assert found.n == 40
    assert found.spherical_variance == pytest.approx(0.2 + 0.25)


def test_select_reads_the_adapters_there_are(three, publish):
    publish("nameless", seed=9, domain=None)
    found = scions.select(["the patient and the drug", "the fever of a patient", "a doctor and a dose"])
    assert {c.name for c in found.ranked} == {"legal", "medical", "engines"}
    assert found.ranked[0].name == "medical"
    assert next(iter(found.weights)) == "medical"
    assert any("nameless is left out: no domain statistics" in note for note in found.notes)


def test_domains_are_compared_without_the_bases_default_prompt(three, pairs, tiny_base, tmp_path):
    # As their statistics are made, and as `adapter="auto"` compares: a prompt would be what all texts have in common.
    prompted = tmp_path / "prompted"
    shutil.copytree(tiny_base, prompted)
    settings = prompted / "config_sentence_transformers.json"
    more = {"prompts": {"query": "engine valve pump motor: "}, "default_prompt_name": "query"}
    settings.write_text(json.dumps(json.loads(settings.read_bytes()) | more))
    texts = ["the patient and the drug", "the fever of a patient"]
    plain, found = scions.select(texts), scions.select(texts, base=str(prompted))
    assert found.ranked == plain.ranked
    weights = [
        scions.mix(["legal", "medical"], name, strategy="similarity", data=pairs, base=base).weights
        for name, base in (("one", None), ("other", str(prompted)))
    ]
    assert weights[0] == weights[1]


def test_only_what_can_be_mixed_is_proposed_together(publish, domains_of_base):
    from scions.store import Initialization

    publish("legal", seed=1, domain=domains_of_base["medical"])
    publish("medical", seed=2, initialisation=Initialization(seed=1, id="other"))
    found = scions.select(["the patient and the dose", "a doctor in the trial"], by="cosine")
    assert len(found.weights) == 1
    assert any("cannot be mixed with" in note for note in found.notes)


def test_nothing_to_choose_from(publish):
    with pytest.raises(AdapterError, match="there is no adapter to choose from"):
        scions.select(["a text"])
    publish("nameless", domain=None)
    with pytest.raises(AdapterError, match="nameless is left out"):
        scions.select(["a text"])
    with pytest.raises(UsageError, match="no texts"):
        scions.select([])
    with pytest.raises(UsageError, match="cosine or mixture"):
        scions.select(["a text"], by="luck")


def test_a_pruned_copy_does_not_stand_beside_its_original(three):
    scions.prune("medical", "slim")
    found = scions.select(["the patient and the drug", "the fever of a patient"])
    assert "slim" not in {c.name for c in found.ranked}
    assert "slim is left out: it is medical, pruned" in found.notes
