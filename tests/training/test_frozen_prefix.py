"""Cached hidden states below the lowest adapter change no result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scions.training.frozen_prefix as prefix
from scions.data import read_splits
from scions.engine.forward import packed_forward
from scions.store import load_base
from scions.training.fit import fit
from scions.training.recipe import choose_recipe
from scions.training.tokens import Tokens
from scions.training.trainable import make_trainable


@pytest.mark.parametrize("method", ["houlsby", "parallel", "lora"])
@pytest.mark.parametrize("shape", ["pairs", "scored"])
def test_training_on_cached_states_is_the_same(write, tiny_base, tmp_path, monkeypatch, method, shape):
    splits = read_splits(str(write(shape)))
    recipe = choose_recipe(splits.train.shape, 42, [10], 64, method, epochs=2, batch_size=16)
    found, used = [], []
    real = prefix.FrozenPrefix.of
    monkeypatch.setattr(prefix.FrozenPrefix, "of", lambda self, places: (used.append(1), real(self, places))[1])
    for limit in (2**30, 0):
        monkeypatch.setattr(prefix, "MAX_PREFIX_BYTES", limit)
        model = load_base(tiny_base, device="cpu").train()
        trained = make_trainable(model, method, rank=2, layers=1)
        assert trained.first_layer == 1
        steps = len(used)
        fit(model, trained, splits.train, splits.dev, recipe, run=tmp_path / str(limit), bf16=False)
        assert (len(used) > steps) == (limit > 0)
        found.append({name: p.detach().clone() for name, p in trained.parameters.items()})
    for name, value in found[1].items():
        assert torch.allclose(found[0][name], value, atol=1e-4), name
    start = make_trainable(load_base(tiny_base, device="cpu"), method, rank=2, layers=1).parameters
    assert any(not torch.allclose(found[0][name], value, atol=1e-3) for name, value in start.items())


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "mpnet", "electra"])
def test_vectors_from_cached_states_are_the_same(tiny_model, kind):
    model = load_base(tiny_model(kind), device="cpu")
    texts = ["the court", "a", "the drug of the doctor in trial", "valve and pump"]
    tokens = Tokens(model, texts, 64)
    [places] = tokens.pieces(np.arange(4))
    features = tokens.features(places, packed=True)
    kept = prefix.FrozenPrefix(model, tokens, 1, bf16=False)
    with torch.no_grad(), packed_forward(model, 1):
        whole = model(dict(features))["sentence_embedding"]
        rest = model({**features, "hidden": kept.of(places)})["sentence_embedding"]
    assert torch.allclose(rest, whole, atol=1e-5)


def test_the_lowest_trained_layer_is_known(tiny_base):
    def first(method, **options):
        return make_trainable(load_base(tiny_base, device="cpu"), method, **options).first_layer

    assert first("houlsby", rank=2) == 0
    assert first("full") == 0
    assert first("lora", rank=2, layers=1) == 1
    assert first("houlsby", rank=2, layers=2) == 0
