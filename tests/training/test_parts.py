"""Best epoch, precision, methods and verdict."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from scions.data import Shape
from scions.engine.precision import autocast, frozen_in_bf16, without_dropout
from scions.errors import UsageError
from scions.evaluation.scores import MeanOfUnits, concluded
from scions.evaluation.verdict import BETTER, SAME, WORSE, judge
from scions.training.best_epoch import BestEpoch
from scions.training.live_encoder import LiveEncoder
from scions.training.trainable import make_trainable


def _select(scores):
    parameter = nn.Parameter(torch.zeros(1))
    given = iter(scores)
    selection = BestEpoch({"x": parameter}, lambda: next(given))
    for step in range(len(scores)):
        parameter.data.fill_(step)
        selection.check(step)
    selection.use_best()
    return float(parameter.detach()), selection


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([9, 1, 3, 2], 2),  # the untrained start does not count
        ([0, 1, 1, 1], 1),  # the earliest of equals
        ([0, math.nan, 1, 2], 3),
        ([0, 2, math.nan, 1], 1),
        ([0, math.nan], 1),  # nothing better is known: the last
    ],
)
def test_the_best_epoch_is_kept(scores, best):
    found, selection = _select(scores)
    assert found == best
    assert [entry["step"] for entry in selection.history] == list(range(len(scores)))


def test_without_scores_the_last_weights_stay():
    parameter = nn.Parameter(torch.zeros(1))
    selection = BestEpoch({"x": parameter}, None)
    selection.check(1)
    parameter.data.fill_(5)
    selection.use_best()
    assert float(parameter.detach()) == 5
    assert selection.history == []


def test_the_best_epoch_of_a_checkpoint_is_compared_with_later_ones():
    parameter = nn.Parameter(torch.ones(1))
    selection = BestEpoch({"x": parameter}, lambda: 4.0)
    selection.history, selection.best = [{"step": 1, "score": 5.0}], {"x": torch.full((1,), 7.0)}
    selection.check(2)
    selection.use_best()
    assert float(parameter.detach()) == 7


def _bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_frozen_layers_come_back_bit_for_bit(model):
    make_trainable(model, "houlsby", rank=2)
    before = _bits(model)
    with suppress(RuntimeError), frozen_in_bf16(model):
        kinds = {name: value.dtype for name, value in model.state_dict().items()}
        assert kinds["0.model.encoder.layer.0.intermediate.dense.weight"] == torch.bfloat16
        assert kinds["0.model.encoder.layer.0.output.dense.bottleneck_down.default.weight"] == torch.float32
        assert kinds["0.model.embeddings.word_embeddings.weight"] == torch.float32
        raise RuntimeError
    after = _bits(model)
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())
    with frozen_in_bf16(model, enabled=False):
        assert all(value.dtype == before[name].dtype for name, value in model.state_dict().items())


def test_dropout_comes_back(model):
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert set(rates.values()) == {0.1}
    with suppress(RuntimeError), without_dropout(model):
        assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
        raise RuntimeError
    assert {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)} == rates
    with without_dropout(model, enabled=False):
        assert any(m.p for m in model.modules() if isinstance(m, nn.Dropout))


def test_autocast_only_where_asked():
    with autocast(torch.device("cpu"), enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_the_live_encoder_returns_the_models_vectors_and_restores_its_mode(model):
    texts = ["the court of law", "a", "the drug of the doctor"]
    expected = model.encode(texts, normalize_embeddings=True)
    model.prompts = {"query": "a court ", "document": ""}
    model.train()
    encoder = LiveEncoder(model, 64, bf16=False)
    assert np.allclose(encoder.encode(texts), expected, atol=1e-5)
    assert np.array_equal(encoder.encode_document(texts), encoder.encode(texts))
    assert np.array_equal(encoder.encode_query(texts), encoder.encode(["a court " + text for text in texts]))
    assert model.training
    model.default_prompt_name = "query"
    assert np.allclose(encoder.encode(texts), model.encode(texts, normalize_embeddings=True), atol=1e-5)
    assert np.array_equal(encoder.encode_query(texts), encoder.encode(texts))
    assert np.allclose(encoder.encode_document(texts), expected, atol=1e-5)


def test_statistics_of_a_domain_are_without_prompts_as_it_is_looked_for(model):
    from scions.data import Shape, Table
    from scions.training.manifest import sample_statistics

    texts = ["the court of law", "a judge", "the drug of the doctor"]
    expected = model.encode(texts, normalize_embeddings=True).mean(axis=0)
    model.prompts, model.default_prompt_name = {"query": "a court "}, "query"
    assert np.allclose(sample_statistics(Table(Shape.TEXTS, {"text": texts}, "t"), model).mean, expected, atol=0.005)


@pytest.mark.parametrize("method", ["houlsby", "pfeiffer", "parallel", "lora"])
@pytest.mark.parametrize("share", [0.05, 0.15])
def test_a_share_counts_every_trained_tensor(tiny_base, method, share):
    from scions.store import load_base

    def trained(**options):
        model = load_base(tiny_base, device="cpu")
        total = sum(p.numel() for p in model.parameters())
        found = make_trainable(model, method, **options)
        assert found.count == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert found.share == found.count / total
        return found

    found = trained(trainable_share=share)
    assert found.share <= share < trained(rank=found.rank + 1).share


def test_full_trains_everything_and_takes_no_size(model):
    total = sum(p.numel() for p in model.parameters())
    found = make_trainable(model, "full")
    assert (found.count, found.share, found.rank) == (total, 1.0, 0)
    with pytest.raises(UsageError, match="takes no rank, share or layers"):
        make_trainable(model, "full", layers=1)


def test_modules_after_the_transformer_stay_frozen(model):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    both = SentenceTransformer(modules=[model[0], model[1], Dense(32, 24)], device="cpu")
    found = make_trainable(both, "houlsby", rank=2)
    assert all(".default." in name for name in found.parameters)
    assert all(".default." in name for name, p in both.named_parameters() if p.requires_grad)


def test_lora_sits_in_the_linear_layers_of_the_upper_layers(model):
    found = make_trainable(model, "lora", rank=2, layers=1)
    places = {name.split(".lora_")[0].removeprefix("0.model.") for name in found.parameters}
    assert places == {
        f"encoder.layer.1.{part}"
        for part in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
    }
    with pytest.raises(UsageError, match="only 2 layers"):
        make_trainable(model, "lora", rank=2, layers=3)


def _scored(values, metric="ndcg@10"):
    return concluded(
        Shape.RETRIEVAL, metric, {metric: MeanOfUnits(np.array(values))}, [str(i) for i in range(len(values))]
    )


BASE = np.random.default_rng(0).random(80) * 0.5


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (np.full(80, 0.1), BETTER),
        (np.full(80, -0.1), WORSE),
        (np.zeros(80), SAME),
        (np.random.default_rng(1).normal(0, 0.2, 80), SAME),
    ],
)
def test_the_interval_of_the_difference_decides(change, outcome):
    verdict = judge(_scored(BASE), _scored(BASE + change))
    assert verdict.outcome == outcome
    assert verdict.difference.value == pytest.approx(100 * change.mean(), abs=1e-6)
    assert verdict.difference.low <= verdict.difference.value <= verdict.difference.high
    assert (verdict.difference.low > 0) == (outcome == BETTER)
    assert (verdict.difference.high < 0) == (outcome == WORSE)
    figures = f"{verdict.base.value:.2f} → {verdict.adapter.value:.2f} ({verdict.difference.value:+.2f}"
    assert figures in verdict.summary
    assert verdict.to_dict()["summary"] == verdict.summary


def test_the_summary_names_a_baseline_that_does_better():
    baselines = {"linear map": _scored(BASE + 0.3), "full fine-tuning": _scored(BASE + 0.2)}
    verdict = judge(_scored(BASE), _scored(BASE + 0.1), baselines=baselines, drift=91.0)
    assert verdict.summary.endswith(f"A linear map does better still: {100 * (BASE + 0.3).mean():.2f}.")
    assert "still" not in judge(_scored(BASE), _scored(BASE + 0.4), baselines=baselines).summary
    assert verdict.to_dict()["drift"] == 91.0


def test_the_general_set_has_its_own_difference():
    pair = (_scored(BASE), _scored(BASE - 0.05))
    general = judge(_scored(BASE), _scored(BASE), general=pair).general
    assert general["difference"]["value"] == pytest.approx(-5)
    assert general["before"]["value"] - general["after"]["value"] == pytest.approx(5)


@pytest.mark.parametrize("method", ["houlsby", "lora"])
def test_first_weights_are_the_same_for_every_adapter_of_a_base(tiny_base, method):
    from scions.store import load_base

    found, drawn = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(torch.rand(3))
        torch.manual_seed(seed)
        model = load_base(tiny_base, device="cpu")
        torch.manual_seed(seed)
        found.append({name: p.detach().clone() for name, p in make_trainable(model, method, rank=2).parameters.items()})
        assert torch.equal(torch.rand(3), drawn[-1])  # and nobody else's draws are changed
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())
