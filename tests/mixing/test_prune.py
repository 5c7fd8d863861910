"""Pruned adapters: smaller on disk, and what they give is what was left of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scions
from scions import BottleneckConfig
from scions.adapters.initial import initial_weights
from scions.errors import AdapterError, UsageError
from scions.merging.tensor_sites import is_matrix
from scions.mixing.adapters import read_stored
from scions.mixing.prune import prune_adapter
from scions.store import Manifest, adapter_fingerprint, list_adapters, read_weights

WORDS = ["the court of law", "a pump", "the patient and the dose of a drug"]


def start_of(member):
    return initial_weights({name: tuple(t.shape) for name, t in member.tensors.items()}, 0)


def vectors(tiny_base, name):
    encoder = scions.DomainEncoder(tiny_base, dtype="float32")
    encoder.load_adapter(name)
    return encoder.encode(WORDS, adapter=name)


def test_first_weights_are_those_an_adapter_is_made_with(tiny_base, publish):
    from scions.store import load_base

    model = load_base(tiny_base, device="cpu")
    model.add_adapter(BottleneckConfig(rank=3), "default")
    fresh = dict(model[0].auto_model.named_parameters())
    start = start_of(publish())
    assert len(start) == 8
    for name, first in start.items():
        key = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        assert torch.equal(fresh[key], first)


def test_by_magnitude_the_least_moved_values_go_back_to_the_start(publish):
    member = publish()
    found = prune_adapter(member, 0.9, "magnitude")
    start = start_of(member)
    for name, first in start.items():
        moved, stays = member.tensors[name] - first, found.tensors[name] - first
        gone = stays == 0
        assert gone.float().mean() == pytest.approx(0.9, abs=0.02)
        assert moved[gone].abs().max() <= moved[~gone].abs().min()
        # As far in the direction of the whole movement as that went.
        assert (moved * stays).sum() == pytest.approx(float(moved.square().sum()), rel=1e-4)
    rest = [name for name in member.tensors if name not in start]
    assert rest
    assert all(torch.equal(found.tensors[name], member.tensors[name]) for name in rest)


def test_sign_aware_takes_conflicting_values_first(three):
    member, other = three[:2]
    found = prune_adapter(member, 0.5, "sign-aware", [other])
    plain = prune_adapter(member, 0.5, "magnitude")
    start = start_of(member)

    def conflicts(made):
        left = [made.tensors[n] != first for n, first in start.items()]
        against = [member.tensors[n].sign() * other.tensors[n].sign() < 0 for n in start]
        return sum(int((kept & clash).sum()) for kept, clash in zip(left, against, strict=True))

    assert found.sparsity == pytest.approx(plain.sparsity, abs=0.01)
    assert conflicts(found) < 0.8 * conflicts(plain)


def test_the_file_is_smaller_and_read_back_whole(publish, tiny_base):
    member = publish(config=BottleneckConfig(rank=24), rank=24)
    done = scions.prune("legal", "slim", sparsity=0.9)
    expected = prune_adapter(member, 0.9, "magnitude").tensors
    tensors = read_weights(done.path)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    matrices = sum(tensor.numel() * 4 for name, tensor in tensors.items() if is_matrix(name))
    rest = sum(tensor.numel() * 4 for tensor in tensors.values()) - matrices
    assert done.bytes_after < 0.15 * matrices + rest + 8000  # the header names every part
    assert done.bytes_after < done.bytes_before
    manifest = Manifest.read(done.path)
    assert manifest.extra["pruned"]["of"] == "legal"
    assert manifest.extra["pruned"]["sparsity"] == pytest.approx(0.9, abs=0.01)
    assert manifest.initialisation == member.manifest.initialisation
    encoder = scions.DomainEncoder(tiny_base, dtype="float32")
    loaded = encoder.load_adapter("slim")
    assert loaded.fingerprint == adapter_fingerprint(done.path)
    assert encoder.space("slim") == manifest.space_fingerprint
    assert [entry.problem for entry in list_adapters()] == [None, None]
    # PEFT's own loader does not know the format, and must not take the folder for an adapter it can read.
    assert not (done.path / "adapter_model.safetensors").exists()


def test_a_pruned_adapter_can_be_mixed(three):
    scions.prune("legal", "slim")
    assert scions.mix(["slim", "medical"], "soup").path is not None


def test_whole_units_leave_the_vectors_of_zeroed_ones(publish, tiny_base):
    member = publish(config=BottleneckConfig(rank=6), rank=6)
    done = scions.prune("legal", "slim", sparsity=0.5, strategy="neurons")
    assert (done.rank, done.manifest.rank) == (3, 3)
    slim = read_stored(done.path)
    assert slim.config["rank"] == 3
    zeroed = dict(member.tensors)
    for name, tensor in slim.tensors.items():
        if not name.endswith("down.weight"):
            continue
        whole = member.tensors[name]
        gone = ~(whole[:, None] == tensor[None]).all(dim=2).any(dim=1)
        assert int(gone.sum()) == 3
        up, bias = name.replace("_down", "_up"), name.replace("weight", "bias")
        zeroed[name], zeroed[up], zeroed[bias] = whole.clone(), zeroed[up].clone(), zeroed[bias].clone()
        zeroed[name][gone] = 0
        zeroed[bias][gone] = 0
        zeroed[up][:, gone] = 0
    from scions.mixing.trial import TrialBase

    expected = TrialBase.of(member).trial(zeroed, member.config, member.manifest).encode(WORDS)
    found = vectors(tiny_base, "slim")
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(found - expected).max() < 1e-6
    assert done.bytes_after < done.bytes_before
    with pytest.raises(AdapterError, match=r"cannot be (compared|mixed)"):
        scions.mix(["legal", "slim"], "soup")


def test_after_units_went_the_start_is_not_known(publish):
    publish(config=BottleneckConfig(rank=6, layers=2), rank=6)
    scions.prune("legal", "slim", sparsity=0.5, strategy="neurons")
    scions.prune("slim", "upper", sparsity=0.5, strategy="layers")
    for name in ("slim", "upper"):
        with pytest.raises(AdapterError, match=f"{name}: units were taken out"):
            scions.prune(name, "slimmer")
    publish("medical", seed=2, config=BottleneckConfig(rank=3, layers=2))
    assert scions.compare(["slim", "medical"]).pairs[0].update_cosine is None


def test_whole_layers_leave_an_adapter_of_the_upper_ones(publish, tiny_base):
    member = publish()
    done = scions.prune("legal", "slim", sparsity=0.5, strategy="layers")
    slim = read_stored(done.path)
    assert (done.layers, slim.config["layers"]) == (1, 1)
    assert {name for name in member.tensors if ".layer.1." in name} == set(slim.tensors)
    from scions.encoder.loading import load_encoder

    plain = load_encoder("slim", base=str(tiny_base)).encode(WORDS)
    assert np.abs(vectors(tiny_base, "slim") - plain).max() < 1e-5


def test_a_curve_goes_from_whole_to_little(publish, pairs):
    publish()
    done = scions.prune("legal", "slim", data=pairs, curve=True)
    shares = [point.sparsity for point in done.curve]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert len(shares) == 7
    assert done.curve[0].score == done.measured.members["legal"]
    assert next(p for p in done.curve if p.sparsity == pytest.approx(0.9, abs=0.01)).score == done.measured.result
    assert done.metric == "ndcg@10"
    from scions.publishing.plots import draw_curve

    shares, scores = [point.sparsity for point in done.curve], [point.score for point in done.curve]
    assert draw_curve(shares, scores, done.base, done.metric, "legal").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": 1.0}, "between 0 and 1"),
        ({"sparsity": 0.0}, "between 0 and 1"),
        ({"strategy": "luck"}, "strategy 'luck' is unknown"),
        ({"strategy": "sign-aware"}, "needs adapters to compare signs with"),
        ({"against": ["medical"]}, r"takes no `against=\.\.\.`"),
        ({"strategy": "neurons", "sparsity": 0.1}, "takes no whole unit out"),
        ({"strategy": "layers", "sparsity": 0.1}, "takes no whole layer out"),
        ({"curve": True}, "needs rows"),
        ({"shape": "pairs"}, r"`shape=\.\.\.` has no use without rows"),
        ({"base": "elsewhere"}, r"`base=\.\.\.` has no use without rows"),
    ],
)
def test_options_out_of_range(three, options, said, adapters_aside):
    with pytest.raises((UsageError, AdapterError), match=said):
        scions.prune("legal", "slim", **options)
    assert not (adapters_aside / "slim").exists()


def test_lora_is_not_pruned(publish):
    from peft import LoraConfig

    publish(config=LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(AdapterError, match="is lora; only bottleneck adapters"):
        scions.prune("legal", "slim")
