"""An adapter on a plain SentenceTransformer and as a PEFT model: saved, loaded, switched, removed."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer

import scions
from scions import BottleneckConfig
from scions.errors import AdapterError

KINDS = ("bert", "roberta", "distilbert", "mpnet", "electra", "modernbert", "qwen3")
TEXTS = ["the court", "a drug of the doctor in trial", "valve", "the seller and the buyer shall claim damages"]


def _perturb(model, name, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if f".{name}." in key:
                p.add_(torch.randn(p.shape, generator=generator) * 0.3)


def _encode(model):
    return model.encode(TEXTS)


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("kind", KINDS)
def test_add_save_load_disable(load, tiny_model, tmp_path, kind, placement):
    model = load(kind)
    base = _encode(model)
    model.add_adapter(BottleneckConfig(rank=3, placement=placement), "legal")
    model.eval()
    near = _encode(model)
    assert not np.array_equal(near, base)
    assert np.abs(near - base).max() < 0.02
    _perturb(model, "legal")
    adapted = _encode(model)
    assert np.abs(adapted - base).max() > 0.05
    model.disable_adapters()
    assert np.array_equal(_encode(model), base)
    model.enable_adapters()
    assert np.array_equal(_encode(model), adapted)
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert not list((tmp_path / "saved").rglob("*.bin"))
    whole = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert np.allclose(_encode(whole), adapted, atol=1e-6)
    plain = SentenceTransformer(str(tiny_model(kind)), device="cpu")
    plain.load_adapter(str(tmp_path / "saved"), adapter_name="legal")
    assert np.allclose(_encode(plain), adapted, atol=1e-6)
    plain.delete_adapter("legal")
    assert np.array_equal(_encode(plain), base)


@pytest.mark.parametrize("placement", ["houlsby", "parallel"])
def test_two_adapters_of_different_rank(load, placement):
    model = load("bert")
    base = _encode(model)
    vectors = {}
    for name, rank, seed in (("legal", 2, 1), ("medical", 5, 2)):
        model.add_adapter(BottleneckConfig(rank=rank, placement=placement), name)
        model.eval()
        _perturb(model, name, seed)
        vectors[name] = _encode(model)
    assert np.abs(vectors["legal"] - vectors["medical"]).max() > 0.05
    model.set_adapter("legal")
    assert model.active_adapters() == ["legal"]
    assert np.array_equal(_encode(model), vectors["legal"])
    model.set_adapter("medical")
    assert np.array_equal(_encode(model), vectors["medical"])
    model.delete_adapter("medical")
    model.set_adapter("legal")
    assert np.array_equal(_encode(model), vectors["legal"])
    model.delete_adapter("legal")
    assert np.array_equal(_encode(model), base)


def test_each_of_two_is_saved_alone(load, tiny_model, tmp_path):
    model = load("bert")
    for name, seed in (("legal", 1), ("medical", 2)):
        model.add_adapter(BottleneckConfig(rank=2), name)
        _perturb(model, name, seed)
    model.eval()
    for name in ("legal", "medical"):
        model.set_adapter(name)
        expected = _encode(model)
        model.save_pretrained(str(tmp_path / name), create_model_card=False)
        plain = load("bert")
        plain.load_adapter(str(tmp_path / name), adapter_name=name)
        assert np.allclose(_encode(plain), expected, atol=1e-6)


@pytest.mark.parametrize("other", ["houlsby", "parallel"])
def test_a_site_cannot_hold_both_kinds_of_bottleneck(load, other):
    first = "parallel" if other == "houlsby" else "houlsby"
    model = load("bert")
    model.add_adapter(BottleneckConfig(rank=2, placement=first), "legal")
    with pytest.raises(AdapterError, match=f"'medical' is placed {other}.*load it on a separate model"):
        model.add_adapter(BottleneckConfig(rank=2, placement=other), "medical")


@pytest.mark.parametrize("name", ["attention", "output", "encoder", "layer", "dense", "LayerNorm", "bottleneck_down"])
@pytest.mark.parametrize("second", [False, True])
def test_a_name_that_would_lose_tensors_is_refused(load, name, second):
    model = load("bert")
    if second:
        model.add_adapter(BottleneckConfig(rank=2), "legal")
    with pytest.raises(AdapterError, match=f"cannot be named '{name}'"):
        model.add_adapter(BottleneckConfig(rank=2), name)


def test_a_name_with_a_dot_is_refused(load):
    with pytest.raises((AdapterError, KeyError, ValueError), match=r"\."):
        load("bert").add_adapter(BottleneckConfig(rank=2), "a.b")


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_as_a_peft_model(load, tmp_path, placement):
    network = load("bert")[0].auto_model
    model = peft.get_peft_model(network, scions.BottleneckConfig(rank=3, placement=placement))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".default." in name for name in trained)
    inputs = {"input_ids": torch.tensor([[2, 50, 60, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model.train()
    losses = []
    for _ in range(3):
        loss = model(**inputs).last_hidden_state.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    model.eval()
    expected = model(**inputs).last_hidden_state
    model.save_pretrained(str(tmp_path / "saved"))
    again = peft.PeftModel.from_pretrained(load("bert")[0].auto_model, str(tmp_path / "saved")).eval()
    assert torch.allclose(again(**inputs).last_hidden_state, expected, atol=1e-6)
    with model.disable_adapter():
        plain = load("bert")[0].auto_model.eval()(**inputs).last_hidden_state
        assert torch.equal(model(**inputs).last_hidden_state, plain)
    with pytest.raises(AdapterError, match="cannot be merged"):
        model.merge_and_unload()


def test_unloading_gives_the_base_back(load):
    network = load("bert")[0].auto_model
    names = [name for name, _ in network.named_modules()]
    model = peft.get_peft_model(network, BottleneckConfig(rank=2))
    assert [name for name, _ in model.unload().named_modules()] == names


def test_own_target_modules_train_and_come_back(load, tmp_path):
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    torch.manual_seed(0)
    net = Net()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    model = peft.get_peft_model(net, BottleneckConfig(rank=2, target_modules="second"))
    _perturb(model, "default")
    x = torch.randn(5, 4)
    expected = model(x)
    model.save_pretrained(str(tmp_path / "saved"))
    other = Net()
    other.load_state_dict(state)
    assert torch.allclose(peft.PeftModel.from_pretrained(other, str(tmp_path / "saved"))(x), expected, atol=1e-6)


def test_after_a_refusal_the_model_takes_a_better_one(load):
    model = load("bert")
    base = _encode(model)
    with pytest.raises(AdapterError):
        model.add_adapter(BottleneckConfig(rank=2), "attention")
    assert np.array_equal(_encode(model), base)
    model.add_adapter(BottleneckConfig(rank=2, placement="parallel"), "legal")
    with pytest.raises(AdapterError):
        model.add_adapter(BottleneckConfig(rank=2), "medical")
    assert set(model[0].auto_model.peft_config) == {"legal"}
    assert not any("medical" in name for name, _ in model.named_parameters())


def test_a_peft_models_file_holds_every_tensor_once(load, tmp_path):
    from safetensors import safe_open

    model = peft.get_peft_model(load("bert")[0].auto_model, BottleneckConfig(rank=2, placement="parallel"))
    model.save_pretrained(str(tmp_path))
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        keys = set(file.keys())
    assert len(keys) == len([p for p in model.parameters() if p.requires_grad])
    assert all(key.startswith("base_model.model.encoder.layer.") for key in keys)
