"""Importance, soft masks, contrast and distillation."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer

import scions.training.fit as fitting
from scions.data import read
from scions.errors import AdapterError, DataError, UsageError
from scions.publishing.plots import check_picture, draw_heads
from scions.store import load_base
from scions.training.fit import fit
from scions.training.preservation.contrast import Contrast, contrast_loss
from scions.training.preservation.distillation import Distillation, distillation_loss
from scions.training.preservation.importance import Importance, dropout, measure_importance, weighted_heads
from scions.training.preservation.soft_mask import ScaledSteps, step_scales
from scions.training.preservation.texts import general_texts
from scions.training.recipe import Recipe, choose_recipe
from scions.training.trainable import make_trainable

TEXTS = ["the court of law", "a judge in the trial", "the valve of the engine", "a patient and a doctor"] * 3
OUTPUT, FEEDFORWARD = "encoder.layer.0.attention.output.dense", "encoder.layer.0.output.dense"


@pytest.fixture
def importance(model: SentenceTransformer) -> Importance:
    """Head 0 matters wholly, the others not at all; likewise coordinate 0 of each place."""
    found = measure_importance(model, TEXTS[:4])
    for values in (*found.heads.values(), *found.sites.values()):
        values.zero_()
        values[0] = 1.0
    return found


def test_importance_has_a_value_per_head_and_coordinate(model):
    found = measure_importance(model, TEXTS)
    config = model[0].auto_model.config
    assert len(found.heads) == config.num_hidden_layers
    assert len(found.sites) == 2 * config.num_hidden_layers
    assert {len(values) for values in found.heads.values()} == {config.num_attention_heads}
    assert {len(values) for values in found.sites.values()} == {config.hidden_size}
    every = torch.cat([*found.heads.values(), *found.sites.values()])
    assert bool(((every >= 0) & (every <= 1)).all())
    assert float(every.std()) > 0.05  # not all alike


def test_importance_depends_on_the_seed_alone_and_leaves_the_model_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, training = torch.get_rng_state(), model.training
    first, again, other = (measure_importance(model, TEXTS, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first.sites[name], again.sites[name]) for name in first.sites)
    assert not all(torch.equal(first.sites[name], other.sites[name]) for name in first.sites)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training is training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_head_that_does_nothing_is_not_like_the_others(model):
    """The gradient of a mask on a head whose output is zero is zero, and so the least of its layer."""
    heads = model[0].auto_model.config.num_attention_heads
    width = model[0].auto_model.config.hidden_size // heads
    with torch.no_grad():
        value = model[0].auto_model.get_submodule("encoder.layer.0.attention.self.value")
        value.weight[:width] = 0
        value.bias[:width] = 0
    raw = measure_importance(model, TEXTS, squash=False).heads[OUTPUT]
    assert float(raw[0]) == 0
    assert bool((raw[1:] > 0).all())


@pytest.mark.parametrize("kind", ["distilbert", "modernbert", "qwen3"])
def test_importance_of_bases_without_dropout(tiny_model, kind):
    model = load_base(tiny_model(kind), device="cpu")
    before = {name: getattr(m, "attention_dropout", None) for name, m in model.named_modules()}
    raw = measure_importance(model, TEXTS, squash=False)
    assert all(bool((values > 0).all()) for values in (*raw.heads.values(), *raw.sites.values()))
    assert before == {name: getattr(m, "attention_dropout", None) for name, m in model.named_modules()}


def test_a_base_with_equal_dropout_passes_is_refused(model):
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, torch.nn.Dropout):
                setattr(parent, name, torch.nn.Dropout1d(0.0))  # one that is not switched on
    with pytest.raises(AdapterError, match="same vectors"):
        measure_importance(model, TEXTS)


def test_long_texts_are_cut_where_the_bases_positions_end(model):
    assert model.max_seq_length == 64
    assert measure_importance(model, ["court " * 100, "law " * 100]).heads


def test_shuffled_keeps_the_values_of_each_place(importance):
    importance.sites[FEEDFORWARD] = torch.arange(len(importance.sites[FEEDFORWARD])).float()
    mixed = importance.shuffled(0).sites[FEEDFORWARD]
    assert not torch.equal(mixed, importance.sites[FEEDFORWARD])
    assert torch.equal(mixed.sort().values, importance.sites[FEEDFORWARD])


def test_no_texts_are_an_error(model):
    with pytest.raises(UsageError, match="no texts"):
        measure_importance(model, [])


def test_general_pass_is_the_full_one_where_every_head_counts(model, importance):
    features = model.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    for values in importance.heads.values():
        values.fill_(1.0)
    model.eval()
    with torch.no_grad():
        full = model(dict(features))["sentence_embedding"]
        with weighted_heads(model[0].auto_model, importance):
            same = model(dict(features))["sentence_embedding"]
        importance.heads[OUTPUT][1] = 0.0
        with weighted_heads(model[0].auto_model, importance):
            less = model(dict(features))["sentence_embedding"]
        after = model(dict(features))["sentence_embedding"]
    assert torch.allclose(full, same)
    assert not torch.allclose(full, less)
    assert torch.equal(full, after)  # no hook is left


def _step(model, method, importance):
    """What one step of the optimiser moves, with every gradient 1."""
    trained = make_trainable(model, method, rank=None if method == "full" else 4)
    transformer = model[0].auto_model
    scaled = step_scales(transformer, trained.parameters, importance)
    optimizer = torch.optim.AdamW(list(trained.parameters.values()), lr=0.1, weight_decay=0.0)
    ScaledSteps(optimizer, scaled)
    before = {name: p.detach().clone() for name, p in transformer.named_parameters() if p.requires_grad}
    for parameter in trained.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {name: (p.detach() - before[name]).abs() for name, p in transformer.named_parameters() if name in before}


def test_full_fine_tuning_leaves_important_heads_alone(model, importance):
    width = model[0].auto_model.config.hidden_size // model[0].auto_model.config.num_attention_heads
    moved = _step(model, "full", importance)
    for part in ("query", "key", "value"):
        for kind in ("weight", "bias"):
            change = moved[f"encoder.layer.0.attention.self.{part}.{kind}"]
            assert float(change[:width].max()) == 0
            assert float(change[width:].min()) > 0.05
    change = moved[f"{OUTPUT}.weight"]
    assert float(change[:, :width].max()) == 0
    assert float(change[:, width:].min()) > 0.05
    assert float(moved[f"{FEEDFORWARD}.weight"].min()) > 0.05  # no head's
    assert float(moved[f"{OUTPUT}.bias"].min()) > 0.05


def test_lora_leaves_important_heads_alone(write, model, importance, tmp_path):
    width = model[0].auto_model.config.hidden_size // model[0].auto_model.config.num_attention_heads
    table, trained = read(str(write("pairs"))), make_trainable(model, "lora", rank=4)
    recipe = choose_recipe(table.shape, len(table), [9], 64, "lora", epochs=2, preserve="mask")
    fit(model, trained, table, None, recipe, run=tmp_path, importance=importance)
    modules = dict(model[0].auto_model.named_modules())
    parts = [modules[name] for name in (OUTPUT, "encoder.layer.0.attention.self.query")]
    output, query = ((m.lora_B["default"].weight @ m.lora_A["default"].weight).detach() for m in parts)
    assert float(output[:, :width].abs().max()) == float(query[:width].abs().max()) == 0
    assert float(output[:, width:].abs().max()) > 1e-4 < float(query[width:].abs().max())


def test_lora_leaves_important_heads_alone_on_their_side(model, importance):
    width = model[0].auto_model.config.hidden_size // model[0].auto_model.config.num_attention_heads
    moved = _step(model, "lora", importance)
    change = moved["encoder.layer.0.attention.self.query.lora_B.default.weight"]
    assert float(change[:width].max()) == 0
    assert float(change[width:].min()) > 0.05
    change = moved[f"{OUTPUT}.lora_A.default.weight"]
    assert float(change[:, :width].max()) == 0
    assert float(change[:, width:].min()) > 0.05
    assert float(moved[f"{OUTPUT}.lora_B.default.weight"].min()) > 0.05
    assert float(moved["encoder.layer.0.attention.self.query.lora_A.default.weight"].min()) > 0.05


@pytest.mark.parametrize("method", ["houlsby", "pfeiffer"])
def test_adapters_leave_important_coordinates_alone(model, importance, method):
    moved = _step(model, method, importance)
    norm = "encoder.layer.0.output.LayerNorm.bottleneck_norm.default"
    for name in (f"{FEEDFORWARD}.bottleneck_up.default.weight", f"{FEEDFORWARD}.bottleneck_up.default.bias"):
        assert float(moved[name][0].max()) == 0
        assert float(moved[name][1:].min()) > 0.05
    assert float(moved[f"{norm}.weight"][0]) == 0
    assert float(moved[f"{norm}.bias"][1:].min()) > 0.05
    assert float(moved[f"{FEEDFORWARD}.bottleneck_down.default.weight"].min()) > 0.05


@pytest.mark.parametrize("kind", ["distilbert", "mpnet", "modernbert", "qwen3"])
def test_other_architectures_have_heads_to_mask(tiny_model, kind):
    model = load_base(tiny_model(kind), device="cpu")
    found = measure_importance(model, TEXTS[:4])
    scaled = step_scales(model[0].auto_model, make_trainable(model, "full").parameters, found)
    # Queries, keys, values (or all in one) and the output projection of every layer at least.
    assert len(scaled) >= 2 * len(found.heads)


def test_contrast_prefers_the_second_pass_to_the_general_one():
    first = torch.eye(3)
    good = contrast_loss(first, first, -first, 20.0)
    bad = contrast_loss(first, -first, first, 20.0)
    assert float(good) < 0.01 < 10 < float(bad)


def test_contrast_trains_and_puts_dropout_back(model, importance):
    make_trainable(model, "houlsby")
    model.eval()
    features = model.tokenizer(TEXTS[:4], padding=True, return_tensors="pt")
    loss = Contrast(model, importance, 20.0)(dict(features))
    loss.backward()
    assert not model.training
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.parameters())


def test_dropout_is_on_also_where_it_was_switched_off(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    features = model.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    with dropout(model), torch.no_grad():
        passes = [model(dict(features))["sentence_embedding"] for _ in range(2)]
    assert not torch.allclose(*passes)
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_distillation_is_zero_before_the_first_step_and_positive_after(model):
    make_trainable(model, "houlsby")
    term = Distillation(model, TEXTS, 2.0, seed=0, packed=False, bf16=False)
    assert float(term(0).detach()) < 1e-4
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bottleneck_up" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    moved = term(3)
    assert float(moved.detach()) > 0.01
    assert float(term(3).detach()) == float(moved.detach())  # a resumed training draws the same texts
    moved.backward()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.parameters())


def test_general_texts_get_the_bases_default_prompt_and_are_not_cut_for_it(model):
    long = "the court of law and " * 6
    plain = Distillation(model, [long, "a judge"], 1.0, seed=0, packed=False, bf16=False)
    model.prompts, model.default_prompt_name = {"general": "a drug of the doctor: "}, "general"
    term = Distillation(model, [long, "a judge"], 1.0, seed=0, packed=False, bf16=False)
    before = model.tokenizer("a drug of the doctor: ", add_special_tokens=False)["input_ids"]
    for with_prompt, without in zip(term.tokens.ids, plain.tokens.ids, strict=True):
        assert with_prompt == [without[0], *before, *without[1:]]
    expected = model.encode(["a judge"], normalize_embeddings=True)
    assert torch.allclose(term.teacher[1], torch.from_numpy(expected[0]), atol=1e-5)


def test_importance_is_asked_of_the_texts_as_they_are_trained(model, write, tmp_path, monkeypatch):
    asked = []

    def measure(model, texts, **_):
        asked.extend(texts)
        return Importance({})

    monkeypatch.setattr(fitting, "measure_importance", measure)
    monkeypatch.setattr(fitting.Preserver, "of", lambda *_, **__: fitting.Preserver())
    model.prompts = {"query": "a claim: ", "document": "the law: "}
    table, trained = read(str(write("pairs", 20))), make_trainable(model, "pfeiffer", rank=2)
    recipe = choose_recipe(table.shape, len(table), [9], 64, "pfeiffer", epochs=1, preserve="mask")
    fit(model, trained, table, None, recipe, run=tmp_path)
    anchors, positives = table.columns["anchor"], table.columns["positive"]
    assert set(asked) == {"a claim: " + text for text in anchors} | {"the law: " + text for text in positives}


def test_distillation_loss_is_a_distance_of_directions():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert float(distillation_loss(2 * vectors, vectors)) == pytest.approx(0.0, abs=1e-6)
    assert float(distillation_loss(-vectors, vectors)) == pytest.approx(2.0)


def test_sources_of_general_texts(model, write, tmp_path):
    train = read(str(write("pairs")))
    assert set(general_texts("own", model, train)) == set(train.texts())
    words = general_texts("words", model, train, limit=5)
    assert len(words) == 5
    assert words == general_texts("words", model, train, limit=5)
    path = tmp_path / "general.txt"
    path.write_text("one text\nanother text\none text\n")
    assert sorted(general_texts(str(path), model, train)) == ["another text", "one text"]
    path.write_text("one text\n")
    with pytest.raises(DataError, match="at least 2"):
        general_texts(str(path), model, train)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("none", ()),
        ("all", ("distillation", "mask", "contrast")),
        ("mask, distillation", ("distillation", "mask")),
    ],
)
def test_parts_are_read(given, parts):
    recipe = Recipe("contrastive", 2, 0.1, 1, 16, preserve=given)
    assert recipe.preserved == parts


def test_unknown_parts_are_refused():
    recipe = Recipe("contrastive", 2, 0.1, 1, 16, preserve="mask,magic")
    with pytest.raises(UsageError, match="'magic' is unknown"):
        _ = recipe.preserved


def test_heat_map_is_a_picture_and_never_replaces_one_unasked(importance, tmp_path):
    path = tmp_path / "heads.png"
    check_picture(path, force=False)
    heads = [values.tolist() for values in importance.heads.values()]
    path.write_bytes(draw_heads(heads, ".png"))
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in draw_heads(heads, ".SVG")
    with pytest.raises(UsageError, match="force=True"):
        check_picture(path, force=False)
    with pytest.raises(UsageError, match="pictures are"):
        check_picture(tmp_path / "heads.txt", force=False)
