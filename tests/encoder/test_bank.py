"""Adapters come, change and go while others compute with them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig
from safetensors.torch import load_file, save_file

from scions import BottleneckConfig, DomainEncoder
from scions.encoder import AdapterBank
from scions.errors import AdapterError, UsageError
from scions.store import adapter_fingerprint

TEXTS = ["the court and the seller", "a pump of the engine", "fever", "the doctor in trial shall claim damages"]


@pytest.fixture
def domains(tiny_base) -> DomainEncoder:
    return DomainEncoder(tiny_base, dtype="float32", device="cpu")


def test_what_is_loaded_says_who_it_is(publish_adapter, domains):
    folder, _ = publish_adapter("legal", prompts={"query": "court "}, max_length=16)
    weights = domains.load_adapter("legal")
    assert domains.adapters == {"legal": weights}
    assert weights.fingerprint == adapter_fingerprint(folder)
    assert weights.version == weights.fingerprint[:12]
    assert (weights.name, weights.folder, weights.method, weights.rank) == ("legal", folder, "houlsby", 3)
    assert (weights.max_length, weights.prompts) == (16, {"query": "court "})
    stored = sum(tensor.nbytes for tensor in load_file(folder / "adapter_model.safetensors").values())
    assert weights.bytes == stored
    with pytest.raises(dataclasses.FrozenInstanceError):
        weights.name = "other"


def test_in_bf16_an_adapter_takes_half_the_memory(publish_adapter, tiny_base, domains, monkeypatch):
    # The compiled kernel's form fills ranks up to 32, which is more than these have.
    monkeypatch.setattr("scions.engine.adapter_weights.fits", lambda parts, width: False)
    publish_adapter("legal")
    small = DomainEncoder(tiny_base, dtype="bfloat16", device="cpu").load_adapter("legal")
    assert small.bytes < 0.75 * domains.load_adapter("legal").bytes
    assert small.layers[0].attention.down.dtype == torch.bfloat16


def test_another_name_and_another_place(publish_adapter, domains):
    folder, _ = publish_adapter("legal")
    domains.load_adapter(folder, adapter_name="law")
    assert list(domains.adapters) == ["law"]
    with pytest.raises(AdapterError, match="reserved"):
        domains.load_adapter(folder, adapter_name="base")


def test_a_name_is_taken_until_it_is_replaced_or_deleted(publish_adapter, domains):
    first, _ = publish_adapter("legal", seed=1)
    second, _ = publish_adapter("medical", seed=2)
    old = domains.load_adapter(first)
    with pytest.raises(AdapterError, match=rf"'legal' is loaded already \(version {old.version}\).*replace=True"):
        domains.load_adapter(second, adapter_name="legal")
    before = domains.encode(TEXTS, adapter="legal")
    new = domains.load_adapter(second, adapter_name="legal", replace=True)
    assert new.version != old.version
    assert np.abs(domains.encode(TEXTS, adapter="legal") - before).max() > 0.01
    assert domains.delete_adapter("legal") is new
    with pytest.raises(AdapterError, match="None is loaded"):
        domains.delete_adapter("legal")


def test_a_snapshot_does_not_change_and_cannot_be_changed(publish_adapter, domains):
    publish_adapter("legal")
    weights = domains.load_adapter("legal")
    seen = domains.adapters
    domains.delete_adapter("legal")
    assert dict(seen) == {"legal": weights}
    assert not domains.adapters
    with pytest.raises(TypeError):
        seen["other"] = weights


def test_weights_in_hand_outlive_their_name(publish_adapter, domains):
    publish_adapter("legal")
    weights = domains.load_adapter("legal")
    expected = domains.encode(TEXTS, adapter="legal")
    domains.delete_adapter("legal")
    ids, _ = domains.tokenize_rows(TEXTS)
    found = domains.encode_rows(ids, [weights, None, weights, weights], [1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(found[[1, 3]], domains.encode(TEXTS)[[1, 3]], atol=1e-6)


def test_loading_replacing_and_deleting_while_others_encode(publish_adapter, domains):
    folders = [publish_adapter(name, BottleneckConfig(rank=rank), rank)[0] for name, rank in (("one", 2), ("two", 5))]
    lora = publish_adapter("rented", LoraConfig(r=2, target_modules=["query"]), method="lora")[0]
    expected = []
    for folder in folders:
        domains.load_adapter(folder, adapter_name="legal", replace=True)
        expected.append(domains.encode(TEXTS, adapter=["legal", None, "legal", "legal"]))
    assert np.abs(expected[0] - expected[1])[0].max() > 0.01
    stop = threading.Event()
    seen = [0, 0]

    def encode(worker: int) -> int:
        rounds = 0
        while not stop.is_set():
            found = domains.encode(TEXTS, adapter=["legal", None, "legal", "legal"])
            nearest = [float(np.abs(found - other).max()) for other in expected]
            assert min(nearest) < 1e-5, nearest
            seen[int(np.argmin(nearest))] += 1
            domains.encode(TEXTS[worker:], adapter=None, prompt="the court ")
            rounds += 1
        return rounds

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(encode, worker) for worker in range(4)]
        try:
            for turn in range(60):
                domains.load_adapter(folders[turn % 2], adapter_name="legal", replace=True)
                domains.load_adapter(lora, adapter_name=f"rented{turn}")
                if turn:
                    domains.delete_adapter(f"rented{turn - 1}")
        finally:
            stop.set()
        assert all(worker.result() > 0 for worker in workers)
    assert all(seen)
    assert set(domains.adapters) == {"legal", "rented59"}


def test_peft_path_from_many_threads(publish_on, tiny_model):
    base = tiny_model("modernbert")
    for seed, name in enumerate(("one", "two")):
        publish_on(base, name, BottleneckConfig(rank=3, placement="parallel"), seed)
    encoder = DomainEncoder(base, dtype="float32", device="cpu")
    expected = {}
    for name in ("one", "two"):
        encoder.load_adapter(name)
        expected[name] = encoder.encode(TEXTS, adapter=name)

    def encode(turn: int) -> float:
        name = ("one", "two")[turn % 2]
        encoder.load_adapter(name, adapter_name=f"extra{turn}")
        encoder.delete_adapter(f"extra{turn}")
        return float(np.abs(encoder.encode(TEXTS, adapter=name) - expected[name]).max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(encode, range(12))) < 1e-5


def test_another_base_is_refused_and_both_are_named(publish_on, tiny_model, domains, tiny_base):
    publish_on(tiny_model("electra"), "legal", BottleneckConfig(rank=2))
    with pytest.raises(AdapterError) as caught:
        domains.load_adapter("legal")
    assert str(tiny_model("electra")) in str(caught.value)
    assert str(tiny_base) in str(caught.value)


def test_weights_of_another_base_are_refused_in_a_batch(publish_on, tiny_model, domains):
    base = tiny_model("electra")
    publish_on(base, "legal", BottleneckConfig(rank=2))
    foreign = DomainEncoder(base, dtype="float32", device="cpu").load_adapter("legal")
    with pytest.raises(AdapterError, match="'legal' was loaded for a base with weights"):
        domains.encode_rows([[2, 5, 3]], [foreign], [1.0])


def test_tensors_that_do_not_fit(publish_adapter, domains):
    folder, _ = publish_adapter("legal")
    path = folder / "adapter_model.safetensors"
    good = load_file(path)
    first = next(iter(good))
    for wrong, message in (
        ({key: value for key, value in good.items() if key != first}, "1 missing: encoder"),
        (good | {"encoder.layer.9.weight": torch.ones(2)}, "no place in this base: encoder.layer.9"),
        (good | {first: torch.ones(1)}, "of another shape"),
    ):
        save_file(wrong, path)
        with pytest.raises(AdapterError, match=message):
            domains.load_adapter("legal")
    assert not domains.adapters


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(r=2, target_modules=["query"], use_dora=True), "use_dora"),
        (LoraConfig(r=2, target_modules=["query"], bias="lora_only"), "bias"),
        (LoraConfig(r=2, target_modules=["word_embeddings"]), "embeddings.word_embeddings"),
        (LoraConfig(r=2, target_modules=["query"], rank_pattern={"layer.1": 3}), "rank_pattern"),
        (IA3Config(target_modules=["key"], feedforward_modules=[]), "IA3"),
        (BottleneckConfig(rank=2, target_modules=["encoder.layer.0.intermediate.dense"]), "intermediate.dense"),
    ],
)
def test_what_cannot_be_chosen_per_row_is_refused_by_name(publish_adapter, domains, config, message):
    folder, _ = publish_adapter("legal", LoraConfig(r=2, target_modules=["query"]), method="lora")
    content = {**config.to_dict(), "peft_type": config.peft_type.value}
    (folder / "adapter_config.json").write_text(json.dumps(content, default=sorted))
    with pytest.raises(AdapterError, match=f"'legal'.*{message}"):
        domains.load_adapter("legal")


def test_pickles_and_whole_models_are_refused(publish_adapter, a_manifest, adapters_aside, tiny_base, domains):
    import shutil

    folder, _ = publish_adapter("legal")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match="pickle"):
        domains.load_adapter("legal")
    shutil.copytree(tiny_base, adapters_aside / "whole")
    manifest = a_manifest(tiny_base, "whole", method="full", rank=None)
    (adapters_aside / "whole" / "scions.json").write_text(manifest.to_json())
    with pytest.raises(AdapterError, match=r"method full.*takes it as a base"):
        domains.load_adapter("whole")
    assert DomainEncoder(adapters_aside / "whole", device="cpu").engine == "packed"


def test_a_bank_can_be_copied(publish_adapter, domains):
    publish_adapter("legal")
    bank = AdapterBank()
    bank.load(domains.load_adapter("legal"))
    for again in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank))):
        assert list(again.snapshot()) == ["legal"]
        again.delete("legal")
        assert bank.snapshot()


def test_the_methods_take_the_names_of_sentence_transformers(publish_adapter, domains, adapters_aside):
    for name in ("legal", "medical"):
        publish_adapter(name)
        domains.load_adapter(name)
    loaded = domains.load_adapter(peft_model_id=str(adapters_aside / "legal"), adapter_name="law", is_trainable=False)
    assert domains.adapters["law"] is loaded
    for name in ("law", ["law"]):
        domains.set_adapter(adapter_name=name)
        assert domains.active_adapters() == ["law"]
    domains.set_adapter(None)
    assert domains.delete_adapter(adapter_name="law") is loaded
    domains.load_adapter("legal", "law")
    with pytest.raises(AdapterError, match="nobody"):
        domains.delete_adapter(adapter_names=["law", "nobody"])
    law, medical = domains.delete_adapter(adapter_names=["law", "medical"])
    assert (law.name, medical.name) == ("law", "medical")
    assert list(domains.adapters) == ["legal"]


def test_the_old_names_of_arguments_warn(publish_adapter, domains, adapters_aside):
    publish_adapter("legal")
    with pytest.warns(DeprecationWarning, match="adapter_name"):
        domains.load_adapter(adapters_aside / "legal", name="law")
    with pytest.warns(DeprecationWarning, match="peft_model_id"):
        domains.load_adapter(path_or_name="legal", replace=True)
    with pytest.warns(DeprecationWarning, match="adapter_name"):
        domains.set_adapter(name="law")
    with pytest.warns(DeprecationWarning, match="adapter_name"):
        domains.delete_adapter(name="law")


@pytest.mark.parametrize("options", [{"is_trainable": True}, {"hotswap": True}, {"nmae": "law"}])
def test_an_option_that_cannot_be_served_is_refused(domains, options):
    with pytest.raises(UsageError, match=f"no `{next(iter(options))}="):
        domains.load_adapter("legal", "law", **options)
    with pytest.raises(UsageError, match="one adapter, got 2"):
        domains.set_adapter(["legal", "medical"])
