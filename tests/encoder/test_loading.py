"""Loading a base, adapters and other models by name, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from scions.encoder import inject_adapter, load_encoder, space_of
from scions.errors import AdapterError, ScionsError
from scions.store import Base, load_base, read_adapter

TEXTS = ["the court and the seller", "a pump of the engine", "fever"]


def test_base_alone_has_no_adapter(tiny_base, encoder):
    for name in (None, "base"):
        loaded = load_encoder(name, base=str(tiny_base), device="cpu")
        np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_adapter_by_name_gives_the_vectors_it_was_saved_with(publish_adapter, encoder):
    _, trained = publish_adapter("legal", prompts={"query": "court "}, max_length=16)
    loaded = load_encoder("legal", device="cpu")
    np.testing.assert_array_equal(loaded.encode(TEXTS), trained.encode(TEXTS))
    assert np.abs(loaded.encode(TEXTS) - encoder.encode(TEXTS)).max() > 0.01
    assert loaded.active_adapters() == ["legal"]
    assert loaded.max_seq_length == 16
    assert loaded.prompts["query"] == "court "
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())


def test_adapter_by_path_and_lora(publish_adapter):
    from peft import LoraConfig

    folder, trained = publish_adapter("rented", LoraConfig(r=2, target_modules=["query", "value"]), method="lora")
    np.testing.assert_array_equal(load_encoder(folder, device="cpu").encode(TEXTS), trained.encode(TEXTS))


def test_loading_says_nothing(publish_adapter, capfd):
    publish_adapter("legal")
    publish_adapter("medical", seed=2)
    model = load_encoder("legal", device="cpu")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        config, _, weights = read_adapter(_folder("medical"))
        inject_adapter(model, "medical", config, weights)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("ranks", [(3, 3), (3, 5)])
def test_second_adapter_stands_beside_the_first(publish_adapter, ranks):
    from scions import BottleneckConfig

    models = {}
    for seed, (name, rank) in enumerate(zip(("legal", "medical"), ranks, strict=True)):
        _, models[name] = publish_adapter(name, BottleneckConfig(rank=rank), seed)
    model = load_encoder("legal", device="cpu")
    config, _, weights = read_adapter(_folder("medical"))
    inject_adapter(model, "medical", config, weights)
    np.testing.assert_array_equal(model.encode(TEXTS), models["medical"].encode(TEXTS))
    model.set_adapter("legal")
    np.testing.assert_array_equal(model.encode(TEXTS), models["legal"].encode(TEXTS))


def test_second_adapter_of_another_placement(publish_adapter):
    from scions import BottleneckConfig

    publish_adapter("legal")
    _, upper = publish_adapter("upper", BottleneckConfig(rank=2, placement="pfeiffer", layers=1))
    model = load_encoder("legal", device="cpu")
    config, _, weights = read_adapter(_folder("upper"))
    inject_adapter(model, "upper", config, weights)
    np.testing.assert_array_equal(model.encode(TEXTS), upper.encode(TEXTS))


def test_graft_refuses_tensors_that_do_not_fit_and_leaves_the_model_as_it_was(publish_adapter):
    folder, trained = publish_adapter("legal")
    model = load_encoder("legal", device="cpu")
    config, _, weights = read_adapter(folder)
    first = next(iter(weights))
    for wrong, message in (
        ({key: value for key, value in weights.items() if key != first}, "1 missing"),
        (weights | {"encoder.layer.9.weight": torch.ones(2)}, "no place in this base: encoder.layer.9"),
        (weights | {first: torch.ones(1)}, "of another shape"),
    ):
        with pytest.raises(AdapterError, match=message):
            inject_adapter(model, "other", config, wrong)
        assert list(model[0].auto_model.peft_config) == ["legal"]
    with pytest.raises(AdapterError, match="already has an adapter 'legal'"):
        inject_adapter(model, "legal", config, weights)
    np.testing.assert_array_equal(model.encode(TEXTS), trained.encode(TEXTS))


def test_another_base_is_refused_and_both_are_named(publish_adapter, tiny_base):
    other = Base(id="org/other", weights_sha256="a" * 64, architecture="bert", hidden_size=32, layers=2)
    publish_adapter("legal", base=other)
    with pytest.raises(AdapterError) as caught:
        load_encoder("legal", base=str(tiny_base), device="cpu")
    assert "org/other" in str(caught.value)
    assert str(tiny_base) in str(caught.value)


def test_a_base_that_has_moved(publish_adapter, tiny_base):
    from scions.store import base_fingerprint

    gone = Base(
        id="/nowhere/tiny", weights_sha256=base_fingerprint(tiny_base), architecture="bert", hidden_size=32, layers=2
    )
    _, trained = publish_adapter("legal", base=gone)
    with pytest.raises(ScionsError, match=r"pass `base=\.\.\.`"):
        load_encoder("legal", device="cpu")
    found = load_encoder("legal", base=str(tiny_base), device="cpu")
    np.testing.assert_array_equal(found.encode(TEXTS), trained.encode(TEXTS))


def test_damage_is_found_before_the_base_is_loaded(publish_adapter, monkeypatch):
    folder, _ = publish_adapter("legal")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    monkeypatch.setattr("scions.encoder.loading.load_base", lambda *_, **__: pytest.fail("the base was loaded"))
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors"):
        load_encoder("legal", device="cpu")


def test_a_configuration_that_peft_does_not_know(publish_adapter):
    folder, _ = publish_adapter("legal")
    path = folder / "adapter_config.json"
    good = json.loads(path.read_text())
    for changed, message in (({"peft_type": "MAGIC"}, "MAGIC"), ({"rank": 0}, "rank"), ({"colour": 1}, "colour")):
        path.write_text(json.dumps(good | changed))
        with pytest.raises(AdapterError, match=message):
            load_encoder("legal", device="cpu")


def test_misspelled_names_get_a_suggestion(publish_adapter):
    publish_adapter("legal")
    with pytest.raises(AdapterError, match="Did you mean 'legal'"):
        load_encoder("lgeal", device="cpu")


def test_any_sentence_transformer_by_path(tiny_base, encoder):
    loaded = load_encoder(tiny_base, device="cpu")
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_full_method_is_a_whole_model(a_manifest, tiny_base, adapters_aside):
    folder = adapters_aside / "whole"
    shutil.copytree(tiny_base, folder)
    (folder / "scions.json").write_text(a_manifest(tiny_base, "whole", method="full", rank=None).to_json())
    loaded = load_encoder("whole", device="cpu")
    assert loaded.max_seq_length == 16
    assert loaded.encode(TEXTS).shape == (3, 32)
    space = space_of(loaded, folder)
    assert (space.adapter, space.base) == ("whole", str(tiny_base))
    assert space.fingerprint != space_of(load_base(tiny_base, device="cpu")).fingerprint


def test_the_space_tells_adapters_apart(publish_adapter, encoder, tiny_base):
    legal, _ = publish_adapter("legal")
    medical, _ = publish_adapter("medical", seed=2)
    spaces = [
        space_of(encoder),
        space_of(load_encoder(legal, device="cpu"), legal),
        space_of(load_encoder(medical, device="cpu"), medical),
    ]
    assert len({space.fingerprint for space in spaces}) == 3
    assert [space.adapter for space in spaces] == [None, "legal", "medical"]
    assert {(space.base, space.pooling, space.dimensions) for space in spaces} == {(str(tiny_base), "mean", 32)}
    assert space_of(load_base(tiny_base, device="cpu")) == spaces[0]


def _folder(name: str) -> Path:
    from scions.store import default_root

    return default_root() / name
