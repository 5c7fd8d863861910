"""From a file of every shape to a published folder with a verdict."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import scions
import scions.training.baselines.score as baselines
import scions.training.run as run
import scions.training.scoring as scoring
from scions.encoder import load_encoder, space_of
from scions.errors import AdapterError, DataError, ScionsError, UsageError
from scions.store import Manifest, list_adapters
from scions.training import TrainingDiverged, TrainResult, plan, train
from scions.training.trainer import AdapterTrainer

SHAPES = ("texts", "pairs", "triplets", "scored", "binary", "labelled", "candidates", "retrieval")
TEXTS = ["the court of law", "a patient in trial"]
OUTCOMES = ("better", "no measurable difference", "worse")


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


def _no_leftovers(root):
    return not root.exists() or [name for name in os.listdir(root) if name.startswith(".")] == []


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_ends_in_a_verdict_and_a_folder_that_loads(write, short, tiny_base, adapters_aside, shape):
    result = train(write(shape, 220 if shape == "texts" else 60), "legal", force=True, **short)
    assert isinstance(result, TrainResult)
    assert result.verdict.outcome in OUTCOMES
    assert result.path == adapters_aside.resolve() / "legal"
    assert _files(result.path) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "scions.json",
        "scores.png",
    ]
    assert _no_leftovers(adapters_aside)
    [entry] = list_adapters()
    assert entry.problem is None
    assert result.manifest.data.shape == shape
    assert result.manifest.scores["outcome"] == result.verdict.outcome
    ours = load_encoder("legal")
    plain = SentenceTransformer(str(tiny_base), device="cpu")
    base = plain.encode(TEXTS)
    plain.load_adapter(str(result.path), adapter_name="legal")
    assert np.allclose(ours.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    assert np.abs(ours.encode(TEXTS) - base).max() > 1e-4
    assert space_of(ours, result.path).fingerprint == result.manifest.space_fingerprint


@pytest.mark.parametrize("method", ["pfeiffer", "parallel", "lora", "full"])
def test_every_method(write, short, tiny_base, method):
    import peft

    options = {**short, "rank": None} if method == "full" else short
    result = train(write("pairs"), "legal", method=method, force=True, **options)
    assert result.manifest.method == method
    [entry] = list_adapters()
    assert entry.problem is None
    assert entry.manifest.method == method
    ours = load_encoder("legal", device="cpu")
    plain = SentenceTransformer(str(tiny_base), device="cpu")
    base = plain.encode(TEXTS)
    if method == "full":
        plain = SentenceTransformer(str(result.path), device="cpu")
    else:
        plain.load_adapter(str(result.path), adapter_name="legal")
        network = SentenceTransformer(str(tiny_base), device="cpu")
        network[0].model = peft.PeftModel.from_pretrained(network[0].auto_model, str(result.path))
        assert np.allclose(network.encode(TEXTS), ours.encode(TEXTS), atol=1e-6)
    assert np.allclose(ours.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    assert np.abs(ours.encode(TEXTS) - base).max() > 1e-4
    assert space_of(ours, result.path).fingerprint == result.manifest.space_fingerprint


@pytest.mark.parametrize("kind", ["modernbert", "qwen3", "mpnet"])
def test_other_architectures(write, short, tiny_model, kind):
    result = train(write("pairs", 40), "legal", force=True, **{**short, "base": str(tiny_model(kind)), "epochs": 1})
    plain = SentenceTransformer(str(tiny_model(kind)), device="cpu")
    plain.load_adapter(str(result.path), adapter_name="legal")
    assert np.allclose(load_encoder("legal").encode(TEXTS), plain.encode(TEXTS), atol=1e-5)


def test_a_base_with_a_layer_behind_the_transformer(write, short, tiny_base, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense

    base = SentenceTransformer(str(tiny_base), device="cpu")
    folder = tmp_path / "with-dense"
    SentenceTransformer(modules=[base[0], base[1], Dense(32, 24)], device="cpu").save_pretrained(str(folder))
    options = {**short, "base": str(folder), "rank": None, "trainable_share": 0.06}
    result = train(write("pairs"), "legal", force=True, **options)
    assert result.manifest.trainable_share <= 0.06
    assert result.manifest.pooling == "mean+dense"
    plain = SentenceTransformer(str(folder), device="cpu")
    plain.load_adapter(str(result.path), adapter_name="legal")
    assert np.allclose(load_encoder("legal").encode(TEXTS), plain.encode(TEXTS), atol=1e-6)


def test_the_trained_model_is_the_published_one(write, short):
    first = train(write("pairs"), "one", force=True, **short)
    second = train(write("pairs"), "two", force=True, **short)
    contents = [(r.path / "adapter_model.safetensors").read_bytes() for r in (first, second)]
    assert contents[0] == contents[1]
    other = train(write("pairs"), "three", force=True, **{**short, "seed": 1})
    assert (other.path / "adapter_model.safetensors").read_bytes() != contents[0]


def test_the_card_holds_the_figures(write, short, tiny_base):
    result = train(write("pairs"), "legal", force=True, **short)
    text = (result.path / "README.md").read_text()
    verdict, manifest = result.verdict, result.manifest
    front = text.split("---")[1]
    assert f'base_model: "{tiny_base}"' in front
    assert "library_name: " in front
    for part in (
        verdict.summary,
        f"{manifest.trainable_parameters:,} values, {manifest.trainable_share:.2%}",
        "rank 2",
        f"{manifest.data.rows['train']:,} rows (pairs) of `data.jsonl`",
        f"Drift: {verdict.drift:.2f}",
        'adapter_name="legal"',
        "batch_size 16",
    ):
        assert part in text
    for name, before, after in verdict.metrics:
        assert f"| {name} | {before} | {after} |" in text
    assert "| linear map (" in text
    assert (result.path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert Manifest.read(result.path) == manifest
    assert set(manifest.versions) >= {"scions", "torch", "peft"}
    assert manifest.initialisation.seed == 0


def test_a_general_set_and_the_full_baseline(write, short):
    general = write("scored", 20, "general")
    result = train(write("pairs"), "legal", general=general, compare_full=True, force=True, **short)
    assert result.verdict.general["metric"] == "spearman"
    assert result.verdict.drift is None
    assert set(result.verdict.baselines) == {"linear map", "full fine-tuning"}


def test_a_broken_general_set_is_found_before_the_training(write, short, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "general.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"general\.jsonl"):
        train(write("pairs"), "legal", general=tmp_path / "general.jsonl", **short)


def _judged(monkeypatch, outcome):
    from dataclasses import replace

    real = scoring.judge
    monkeypatch.setattr(scoring, "judge", lambda *args, **kwargs: replace(real(*args, **kwargs), outcome=outcome))


def test_worse_is_not_published_unless_forced(write, short, adapters_aside, monkeypatch):
    _judged(monkeypatch, "worse")
    result = train(write("pairs"), "legal", **short)
    assert result.path is None
    assert list_adapters() == []
    assert os.listdir(adapters_aside) == []
    forced = train(write("pairs"), "legal", force=True, **short)
    assert forced.path is not None
    assert list_adapters()[0].manifest.scores["outcome"] == "worse"


def test_no_measurable_difference_is_published(write, short, monkeypatch):
    _judged(monkeypatch, "no measurable difference")
    assert train(write("pairs"), "legal", **short).path is not None


def test_an_existing_name_is_refused_before_anything_is_read(publish_adapter, short):
    folder, _ = publish_adapter("legal")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(AdapterError, match=r"exists already.*force=True"):
        train("/nowhere/data.jsonl", "legal", **short)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_is_no_adapter_is_never_replaced(adapters_aside, short):
    (adapters_aside / "legal").mkdir(parents=True)
    (adapters_aside / "legal" / "thesis.txt").write_text("x")
    with pytest.raises(AdapterError, match="not even with `force=True`"):
        train("/nowhere/data.jsonl", "legal", force=True, **short)


@pytest.mark.parametrize("name", ["attention", "a.b", "a:b", "../x", "base", "auto", "default", "", "bottleneck_up"])
def test_invalid_names(short, name):
    with pytest.raises(AdapterError, match="adapter name"):
        train("/nowhere/data.jsonl", name, **short)


def test_force_replaces(write, short, publish_adapter):
    publish_adapter("legal")
    result = train(write("pairs"), "legal", force=True, **short)
    assert Manifest.read(result.path).data.source == "data.jsonl"
    assert _no_leftovers(result.path.parent)


def _diverges(monkeypatch, at):
    real = AdapterTrainer.compute_loss
    seen = []

    def loss(self, model, inputs, *args, **kwargs):
        seen.append(1)
        if len(seen) == at:
            inputs = {**inputs, "pieces": [(p, dict(f)) for p, f in inputs["pieces"]]}
            for parameter in self.trained.parameters.values():
                parameter.data.fill_(float("nan"))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AdapterTrainer, "compute_loss", loss)


@pytest.mark.parametrize("shape", ["pairs", "scored"])
def test_a_training_that_diverges_publishes_nothing(write, short, adapters_aside, monkeypatch, shape):
    _diverges(monkeypatch, 3)
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 3 of \d+.*lower learning rate"):
        train(write(shape), "legal", **short)
    assert os.listdir(adapters_aside) == []


def test_a_baseline_that_diverges_costs_nothing(write, short, monkeypatch):
    real = baselines.full_fine_tuning

    def full(*args):
        _diverges(monkeypatch, 1)
        return real(*args)

    monkeypatch.setattr(baselines, "full_fine_tuning", full)
    result = train(write("pairs"), "legal", compare_full=True, force=True, **short)
    assert set(result.verdict.baselines) == {"linear map"}
    assert any("full fine-tuning, was left out: training diverged" in note for note in result.notes)


def test_an_adapter_with_equal_vectors_is_refused(write, short, adapters_aside, monkeypatch):
    monkeypatch.setattr(scoring, "drift_of", lambda *_: float("nan"))
    with pytest.raises(TrainingDiverged, match=r"same vector.*lower learning rate"):
        train(write("pairs"), "legal", **short)
    assert os.listdir(adapters_aside) == []


def test_the_highest_learning_rate_ends_in_a_verdict_or_an_error(write, short, adapters_aside):
    try:
        result = train(write("pairs"), "legal", learning_rate=0.99, **short)
    except ScionsError:
        assert _no_leftovers(adapters_aside)
    else:
        assert result.verdict.outcome in OUTCOMES


def _rows(path, part):
    from scions.data import read_splits

    table = getattr(read_splits(str(path)), part)
    return [dict(zip(table.columns, values, strict=True)) for values in zip(*table.columns.values(), strict=True)]


def test_long_texts_are_counted(write, short, tmp_path):
    path = write("pairs", 40)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows[:10]):
        row["positive"] = f"{i} " + "court " * 20_000
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = train(path, "legal", force=True, **short)
    left = 10 - sum(len(row["positive"]) > 100_000 for part in ("dev", "test") for row in _rows(path, part))
    assert result.manifest.data.truncated == {"train": left}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": "cosent"}, UsageError, "pairs data cannot train with 'cosent'"),
        ({"objective": "nonsense"}, UsageError, "choose from contrastive"),
        ({"method": "magic"}, UsageError, "method 'magic' is unknown"),
        ({"batch_size": 1}, UsageError, "batch size"),
        ({"learning_rate": 1.0}, UsageError, "learning rate"),
        ({"epochs": 0}, UsageError, "epochs"),
        ({"max_length": 65}, UsageError, "8 to 64 tokens"),
        ({"trainable_share": 0.1}, UsageError, "not both"),
        ({"layers": 3}, UsageError, "only 2 layers"),
        ({"rank": None, "trainable_share": 0.001}, UsageError, "too small here"),
        ({"rank": None, "trainable_share": 0.001, "method": "lora"}, UsageError, "too small for LoRA"),
        ({"rank": None, "trainable_share": 1.0}, UsageError, "between 0 and 100 %"),
        ({"method": "full"}, UsageError, "takes no rank"),
        ({"base": "/nowhere"}, ScionsError, "no such folder"),
    ],
)
def test_invalid_options(write, short, adapters_aside, options, error, message):
    with pytest.raises(error, match=message):
        train(write("pairs", 40), "legal", **{**short, **options})
    assert not adapters_aside.exists()


def test_test_rows_that_cannot_be_scored_show_before_the_training(write, short, tmp_path, adapters_aside):
    path = tmp_path / "one-class.jsonl"
    path.write_text("".join(json.dumps({"sentence1": f"a {i}", "sentence2": "b", "label": 1}) + "\n" for i in range(9)))
    with pytest.raises(DataError):
        train(write("binary"), "legal", test=path, **short)
    assert not adapters_aside.exists()


def test_planning_writes_nothing(write, short, adapters_aside, tmp_path):
    path = write("pairs", 200)
    before = sorted(tmp_path.rglob("*"))
    made = plan(str(path), name="legal", force=True, resume=False, **short)
    assert sorted(tmp_path.rglob("*")) == before
    assert not adapters_aside.exists()
    assert (made.shape, made.rank, made.method) == ("pairs", 2, "houlsby")
    assert made.rows["train"] + made.rows["dev"] + made.rows["test"] == 200
    assert made.steps == 2 * -(-made.rows["train"] // 16)
    assert made.seconds > 0


def test_callbacks_get_stages_plan_and_steps(write, short):
    stages, plans, steps = [], [], []
    result = train(
        write("pairs"),
        "legal",
        force=True,
        on_stage=stages.append,
        on_recipe=plans.append,
        on_step=steps.append,
        **short,
    )
    assert "training" in stages
    assert plans[0].recipe.reasons["epochs"] == "given"
    assert [step.step for step in steps] == list(range(1, plans[0].steps + 1))
    assert steps[-1].seconds_left == 0
    assert all(np.isfinite(step.loss) and step.rows_per_second > 0 for step in steps)
    assert result.fitted.steps == plans[0].steps


def test_scions_train_is_this_one():
    assert scions.train is train


@pytest.mark.parametrize(
    ("option", "message"),
    [({"rank": 0}, "rank must be at least 1"), ({"seed": -1}, "seed must"), ({"seed": 2**32}, "seed must")],
)
def test_numbers_out_of_range(write, short, option, message):
    with pytest.raises(UsageError, match=message):
        plan(str(write("pairs")), **short | option)


def test_a_plan_of_many_small_classes_in_order(tmp_path, short):
    path = tmp_path / "intents.jsonl"
    rows = [{"text": f"the court {i} of law {i % 7}", "label": f"class {i % 60}"} for i in range(360)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # A sample of the first rows would hold a row of each class, and nothing to train on.
    made = plan(str(path), **short | {"batch_size": 8})
    assert made.seconds > 0
