"""Mixtures as they are published."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scions
from scions.errors import AdapterError, DataError, UsageError
from scions.mixing.holdout import read_holdout
from scions.mixing.mix import mix_tensors
from scions.store import DomainStatistics, Manifest, adapter_fingerprint, read_adapter, read_weights


def test_uniform_is_the_mean_of_every_tensor(three):
    done = scions.mix(["legal", "medical", "engines"], "soup")
    tensors = read_weights(done.path)
    for name, tensor in tensors.items():
        expected = torch.stack([m.tensors[name].double() for m in three]).mean(dim=0)
        assert torch.allclose(tensor.double(), expected, atol=1e-7)
    assert done.weights == pytest.approx(dict.fromkeys(("legal", "medical", "engines"), 1 / 3))


def test_provenance_and_domain(three):
    told = []
    done = scions.mix(["legal", "medical"], "soup", strategy="weighted", weights=[3, 1], on_expectation=told.append)
    manifest = Manifest.read(done.path)
    record = manifest.extra["mixture"]
    assert record["members"] == [
        {"name": m.name, "weight": w, "fingerprint": adapter_fingerprint(m.folder)}
        for m, w in zip(three[:2], (0.75, 0.25), strict=True)
    ]
    assert record["expected_sign_difference"] == told[0].fraction == done.expected.fraction
    assert 0 < told[0].fraction < 1
    assert manifest.data.source == "mixture of legal, medical"
    assert manifest.initialisation == three[0].manifest.initialisation
    assert manifest.space_fingerprint != three[0].manifest.space_fingerprint
    parts = [m.manifest.domain for m in three[:2]]
    mean = 0.75 * np.array(parts[0].mean) + 0.25 * np.array(parts[1].mean)
    assert np.allclose(manifest.domain.mean, mean, atol=1e-6)
    assert manifest.domain.spherical_variance > 0.75 * parts[0].spherical_variance + 0.25 * parts[1].spherical_variance
    assert "mixture (weighted) of `legal` (0.75), `medical` (0.25)" in (done.path / "README.md").read_text()


def test_a_mixture_can_be_used_and_mixed_again(three, tiny_base):
    scions.mix(["legal", "medical"], "soup")
    again = scions.mix(["soup", "engines"], "soup-two")
    encoder = scions.DomainEncoder(tiny_base, dtype="float32")
    encoder.load_adapter("soup-two")
    vectors = encoder.encode(["the court", "a pump"], adapter="soup-two")
    assert np.abs(vectors - encoder.encode(["the court", "a pump"])).max() > 1e-3
    assert encoder.space("soup-two") == again.manifest.space_fingerprint


def test_ties_lets_unchanged_weights_be(three):
    tensors = mix_tensors(three[:2], [0.5, 0.5], "ties", density=0.2)
    from scions.merging.tensor_sites import is_matrix

    moved = three[0].updates()
    start = {name: three[0].tensors[name] - difference for name, difference in moved.items() if is_matrix(name)}
    untouched = np.mean(
        [float(torch.isclose(tensors[name], first, atol=1e-6).float().mean()) for name, first in start.items()]
    )
    assert 0.5 < untouched < 0.9  # a fifth of each stays, and some of it stands against each other
    norm = next(name for name in tensors if "norm" in name)
    assert torch.allclose(tensors[norm], (three[0].tensors[norm] + three[1].tensors[norm]) / 2)


def test_what_was_measured_is_told_and_kept(three, pairs):
    done = scions.mix(["legal", "medical"], "soup", data=pairs)
    assert len(done.measured) == 1
    measured = done.measured[0]
    assert set(measured.members) == {"legal", "medical"}
    assert measured.metric == "ndcg@10"
    manifest = Manifest.read(done.path)
    assert manifest.scores["metrics"]["ndcg@10"]["adapter"]["value"] == measured.result.value
    assert manifest.extra["mixture"]["measured"][0]["base"]["value"] == measured.base.value
    encoder = scions.DomainEncoder(manifest.base.id, dtype="float32")
    encoder.load_adapter("soup")
    encoder.set_adapter("soup")
    from scions.data import read

    assert scions.evaluation.evaluate(encoder, read(str(pairs))).value == pytest.approx(measured.result.value, abs=1e-6)


def test_greedy_chooses_members_on_the_data(three, pairs, monkeypatch):
    scores = iter([50.0, 51.0, 49.0])
    monkeypatch.setattr("scions.evaluation.tasks.dev_score", lambda encoder, table: next(scores))
    done = scions.mix(["legal", "medical", "engines"], "soup", strategy="greedy", data=pairs, target="engines")
    assert [trial.score for trial in done.search.trials] == [50.0, 51.0, 49.0]
    assert len(done.weights) == 2
    assert "engines" in done.weights
    tried = done.manifest.extra["mixture"]["tried"]
    assert [one["kept"] for one in tried] == [True, True, False]
    assert done.measured[0].metric == "ndcg@10"


def test_rows_that_judge_choose_nothing(pairs, tmp_path):
    lines = pairs.read_text().splitlines()
    test = tmp_path / "test.jsonl"
    test.write_text("\n".join(lines[:15]) + "\n")
    found = read_holdout([pairs], [test], chooses=True)[0]
    assert (len(found.dev), len(found.test)) == (25, 15)
    with pytest.raises(DataError, match="every row also stands in"):
        read_holdout([test], [pairs], chooses=True)
    assert len(read_holdout([pairs], [pairs], chooses=False)[0].test) == 40


def test_domains_of_other_dimensions_are_refused(publish):
    publish("legal")
    publish("medical", seed=2, domain=DomainStatistics(mean=[0.1] * 5, spherical_variance=0.1, n=3))
    with pytest.raises(AdapterError, match="5 and 32 dimensions"):
        scions.mix(["legal", "medical"], "soup")


def test_greedy_publishes_nothing_where_none_helps(three, pairs, monkeypatch, adapters_aside):
    scores = iter([50.0, 49.0])
    monkeypatch.setattr("scions.evaluation.tasks.dev_score", lambda encoder, table: next(scores))
    done = scions.mix(["legal", "medical", "engines"], "soup", strategy="greedy", data=pairs, target="legal")
    assert done.path is None
    assert done.weights == {"legal": 1.0}
    assert not (adapters_aside / "soup").exists()


def test_similarity_and_clusters_weigh_by_the_texts(three, tmp_path):
    path = tmp_path / "texts.txt"
    lines = ["the patient and the drug", "a doctor in the fever trial", "the dose of the patient"]
    path.write_text("\n".join(f"{line} {n} of the data and the model" for n in range(30) for line in lines) + "\n")
    done = scions.mix(["legal", "medical", "engines"], "soup", strategy="similarity", data=path)
    assert done.weights["medical"] == max(done.weights.values())
    assert sum(done.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "best"}, "strategy 'best' is unknown"),
        ({"strategy": "weighted"}, "needs a weight for each"),
        ({"weights": [1, 1]}, "chooses its own weights"),
        ({"strategy": "weighted", "weights": [1]}, "1 weights for 2 adapters"),
        ({"strategy": "weighted", "weights": [1, 0]}, "all of the weight falls on legal"),
        ({"strategy": "greedy"}, "give `data="),
        ({"target": "legal"}, "no use for it"),
        ({"density": 0.5}, "`density=...` is the share that TIES does not trim"),
        ({"shape": "pairs"}, r"`shape=\.\.\.` has no use without rows"),
        ({"base": "elsewhere"}, r"`base=\.\.\.` has no use without rows"),
    ],
)
def test_options_that_do_not_go_together(three, options, said, adapters_aside):
    with pytest.raises(UsageError, match=said):
        scions.mix(["legal", "medical"], "soup", **options)
    assert not (adapters_aside / "soup").exists()


def test_names_are_refused_before_anything_is_read(three):
    with pytest.raises(AdapterError, match="exists already"):
        scions.mix(["legal", "medical"], "engines")
    with pytest.raises(AdapterError, match="reserved word"):
        scions.mix(["legal", "medical"], "auto")


def test_query_side_adapters_mix_into_a_query_side_one(publish):
    for seed, name in enumerate(("legal", "medical"), 1):
        publish(name, seed=seed, query_side=True, format_version=2)
    done = scions.mix(["legal", "medical"], "soup")
    assert read_adapter(done.path)[1].query_side
    encoder = scions.DomainEncoder(done.manifest.base.id)
    assert done.manifest.space_fingerprint == encoder.space(None)
    card = (done.path / "README.md").read_text()
    assert "**Query-side**" in card
    assert 'encoder.encode_query(["some question"], adapter="soup")' in card
