"""Packed layers compute what padded ones compute: vectors, gradients, dropout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

from scions import BottleneckConfig
from scions.adapters.layer import AdaptedNorm, BottleneckLinear
from scions.engine.forward import packed_forward, supports
from scions.engine.fused_sublayer import only_bottleneck
from scions.store import load_base

KINDS = ("bert", "roberta", "distilbert", "mpnet", "electra")
# Lengths in tokens, in no order: several texts a block of attention, and texts of one and two tokens.
RAGGED = [1, 60, *[12] * 20, 58, 2, *[25] * 20, 41, *[3] * 8, 1]


@pytest.fixture
def load(tiny_model: Callable[[str], Path]) -> Callable[[str], SentenceTransformer]:
    return lambda kind: load_base(tiny_model(kind), device="cpu")


def _adapted(model: SentenceTransformer, method: str) -> SentenceTransformer:
    if method == "lora":
        linear = [n for n, m in model[0].auto_model.named_modules() if isinstance(m, torch.nn.Linear) and "layer." in n]
        model.add_adapter(LoraConfig(r=2, target_modules=linear), "default")
    elif method != "none":
        model.add_adapter(BottleneckConfig(rank=3, placement=method), "default")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".default." in name:
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.eval()


def _texts(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 80, (length,), generator=generator) for length in lengths]


def _padded(model: SentenceTransformer, texts: list[torch.Tensor]) -> torch.Tensor:
    pad = model.tokenizer.pad_token_id
    features = {
        "input_ids": torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad),
        "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(t) for t in texts], batch_first=True),
    }
    return model(features)["sentence_embedding"]


def _packed(model: SentenceTransformer, texts: list[torch.Tensor]) -> torch.Tensor:
    features = {"input_ids": torch.cat(texts), "lengths": torch.tensor([len(t) for t in texts])}
    with packed_forward(model):
        return model(features)["sentence_embedding"]


@pytest.mark.parametrize("method", ["none", "houlsby", "parallel", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_padded_model(load, kind, method):
    model = _adapted(load(kind), method)
    with torch.no_grad():
        for lengths in (RAGGED, sorted(RAGGED, reverse=True), [1], [33], [5] * 40):
            texts = _texts(lengths)
            assert torch.allclose(_packed(model, texts), _padded(model, texts), atol=1e-5)


def test_the_adapters_in_that_comparison_matter(load):
    texts = _texts(RAGGED)
    with torch.no_grad():
        base = _packed(load("bert"), texts)
        vectors = [_packed(_adapted(load("bert"), method), texts) for method in ("houlsby", "parallel", "lora")]
    assert all((adapted - base).abs().max() > 0.05 for adapted in vectors)


@pytest.mark.parametrize("method", ["full", "houlsby", "parallel", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_padded_model(load, kind, method):
    model = load(kind) if method == "full" else _adapted(load(kind), method)
    texts = _texts(RAGGED)
    weights = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(2))
    gradients = []
    for run in (_padded, _packed):
        model.zero_grad()
        (run(model, texts) * weights).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        # A key's bias has no influence: its gradient is noise around zero.
        scale = max(float(gradient.norm()), 1e-3 * largest)
        assert float((gradient - gradients[1][name]).norm()) <= 1e-4 * scale, name


def test_more_tokens_than_the_model_has_positions(load):
    model = load("bert")
    texts = _texts([64] * 10)
    with torch.no_grad():
        assert torch.allclose(_packed(model, texts), _padded(model, texts), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_of_attention_is_kept(load, kind):
    model = load(kind).train()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            inside = name.endswith(("self.dropout", "attention.dropout", "attn.dropout")) and "output" not in name
            module.p = 0.5 if inside else 0.0
    texts = _texts([9] * 4)
    with torch.no_grad():
        torch.manual_seed(1)
        first, second = _packed(model, texts), _packed(model, texts)
        torch.manual_seed(1)
        again = _packed(model, texts)
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=1e-3)
    with torch.no_grad():
        assert not torch.allclose(_padded(model, texts), _padded(model, texts), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_it_supports(load, kind):
    assert supports(load(kind))


@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_it_says_what_it_does_not_support(load, kind):
    assert not supports(load(kind))


def test_a_decoder_and_a_model_without_transformer_are_not_supported(load):
    from sentence_transformers.sentence_transformer.modules import BoW

    model = load("bert")
    model[0].auto_model.config.is_decoder = True
    assert not supports(model)
    assert not supports(SentenceTransformer(modules=[BoW(vocab=["court", "law"])]))


def test_the_forward_comes_back_nested_and_after_errors(load):
    model = load("bert")
    before = model.encode(["the court"])
    with packed_forward(model):
        outer = model.forward
        with packed_forward(model):
            assert model.forward is not outer
        assert model.forward is outer
    assert "forward" not in model.__dict__
    with pytest.raises(RuntimeError, match="stop"), packed_forward(model):
        raise RuntimeError("stop")
    assert np.array_equal(model.encode(["the court"]), before)


@pytest.mark.parametrize(("device", "dtype", "taken"), [("cpu", "bfloat16", True), ("meta", "bfloat16", False)])
def test_only_a_cpus_layer_norm_takes_two_precisions(device, dtype, taken):
    base, norm = torch.nn.Linear(8, 8).requires_grad_(False), AdaptedNorm(torch.nn.LayerNorm(8))
    dense = BottleneckLinear(base)
    dense.update_layer("legal", BottleneckConfig(rank=3), 8, "site")
    norm.update_layer("legal")
    dense.set_adapter("legal")
    norm.set_adapter("legal")
    base.to(device, getattr(torch, dtype))
    assert only_bottleneck(dense, None, norm) == ("legal" if taken else None)
