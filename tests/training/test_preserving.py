"""Trainings that preserve general knowledge, from options to verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scions.training.prepare as preparing
import scions.training.preservation.preserver as preserver
import scions.training.run as run
import scions.training.train_callback as train_callback
from scions.data import Shape
from scions.errors import DataError, Interrupted, UsageError
from scions.training import plan, train
from scions.training.options import TrainOptions
from scions.training.prepare import prepare
from scions.training.preservation.contrast import Contrast
from scions.training.recipe import choose_recipe

OWN = {"general_texts": "own"}


@pytest.mark.parametrize(
    ("shape", "rows", "more"),
    [
        ("retrieval", 60, {"preserve": "all", "query_side": True, **OWN}),
        ("texts", 220, {"preserve": "all", "method": "pfeiffer", "layers": 1, **OWN}),
        ("scored", 60, {"preserve": "mask,contrast", "method": "parallel"}),
        ("pairs", 60, {"preserve": "all", "method": "full", "rank": None, "general_texts": "words"}),
    ],
)
def test_every_way_ends_in_a_verdict_and_leaves_nothing_switched_on(write, short, monkeypatch, shape, rows, more):
    models = []
    real = run.fit

    def fit(model, *arguments, **options):
        before = [(m, m.p) for m in model.modules() if hasattr(m, "p")]
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        done = real(model, *arguments, **options)
        assert all(m.p == p for m, p in before)
        assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        assert not model.training
        models.append(model)
        return done

    monkeypatch.setattr(run, "fit", fit)
    result = train(write(shape, rows), "legal", force=True, **{**short, **more})
    assert models
    assert result.path is not None
    assert result.manifest.recipe["preserve"] == more["preserve"]


def test_distillation_keeps_more_than_none(write, short):
    data = write("pairs", 120)
    options = {**short, "epochs": 6, "learning_rate": 0.03, "force": True}
    plain = train(data, "plain", preserve="none", **options)
    kept = train(data, "kept", preserve="distillation", **OWN, **options)
    assert plain.verdict.drift < kept.verdict.drift


def test_general_texts_that_nothing_reads_are_refused(write, short, adapters_aside):
    for parts in ("none", "mask,contrast"):
        with pytest.raises(UsageError, match=r"`general_texts=\'own\'`.*leave `preserve=\.\.\.` out"):
            train(write("pairs"), "legal", preserve=parts, **OWN, **short)
    assert not adapters_aside.exists()


def test_general_texts_ask_for_distillation():
    recipe = choose_recipe(Shape.PAIRS, 100, [10], 64, "houlsby", general_texts="own")
    assert recipe.preserved == ("distillation",)
    assert "named" in recipe.reasons["preserve"]
    assert choose_recipe(Shape.PAIRS, 100, [10], 64, "houlsby").preserved == ()


def test_general_texts_are_read_before_anything_is_scored(write, short, tmp_path, adapters_aside):
    stages = []
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        train(
            write("pairs"),
            "legal",
            preserve="distillation",
            general_texts=tmp_path / "none.txt",
            on_stage=stages.append,
            **short,
        )
    assert len(stages) == 1
    assert not adapters_aside.exists()


def test_an_error_in_the_training_leaves_no_folder(write, short, adapters_aside, monkeypatch):
    def broken(*_, **__):
        raise DataError("broken")

    monkeypatch.setattr(run, "fit", broken)
    with pytest.raises(DataError, match="broken"):
        train(write("pairs"), "legal", **short)
    assert list(adapters_aside.iterdir()) == []


def test_resuming_with_other_general_texts_is_refused(write, short, tmp_path, monkeypatch):
    path, data = tmp_path / "general.txt", write("pairs")
    path.write_text("the court of law\na judge in the trial\n")
    options = {**short, "preserve": "distillation", "general_texts": path}

    def stop(step):
        if step.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_callback, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train(data, "legal", on_step=stop, **options)
    path.write_text("the court of law\nthe valve of the engine\n")
    with pytest.raises(UsageError, match="other settings: general_texts_hash"):
        train(data, "legal", resume=True, **options)


def test_contrast_takes_a_text_once_per_step(write, short, monkeypatch):
    rows = [{"anchor": f"the court {i % 5}", "positive": f"a judge {i}"} for i in range(60)]
    path = write("pairs")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []
    real = Contrast.__call__

    def call(self, features):
        seen.append([tuple(row) for row in features["input_ids"].tolist()])
        return real(self, features)

    monkeypatch.setattr(preserver.Contrast, "__call__", call)
    train(path, "legal", preserve="contrast", force=True, **short)
    assert seen
    assert all(len(set(texts)) == len(texts) <= 5 for texts in seen)


def test_beyond_the_limit_on_general_loss_nothing_is_published(write, short, adapters_aside):
    options = {**short, "epochs": 6, "learning_rate": 0.05}
    result = train(write("pairs", 120), "legal", max_general_loss=0.01, **options)
    if result.verdict.outcome == "worse":
        pytest.skip("worse on the domain too")
    assert (result.verdict.outcome, result.path) == ("forgets too much", None)
    assert f"lost {100 - result.verdict.drift:.2f} points, more than `max_general_loss=" in result.verdict.summary
    assert list(adapters_aside.iterdir()) == []


def test_a_limit_with_nothing_to_measure_is_refused(write, short, monkeypatch):
    def none():
        raise DataError("no docstrings")

    monkeypatch.setattr(preparing, "drift_pairs", none)
    data = write("pairs")
    for do in (lambda **options: train(data, "legal", **options), lambda **options: plan(str(data), **options)):
        with pytest.raises(UsageError, match=r"nothing to measure it on.*general="):
            do(max_general_loss=1.0, **short)
    assert train(data, "legal", max_general_loss=100.0, general=write("scored"), force=True, **short).path is not None


def test_prepared_texts_are_those_of_the_recipe(write, short):
    options = {"preserve": "distillation", "general_texts": Path("own"), "epochs": None}
    made = prepare(TrainOptions.of(write("pairs"), None, {"base": short["base"], "rank": 2, **options}))
    assert made.plan.recipe.general_texts == "own"
    assert made.distilled is not None
    assert sorted(made.distilled) == sorted(made.splits.train.texts())
