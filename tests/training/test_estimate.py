"""Estimates of a dry run."""

from __future__ import annotations

import psutil
import pytest

import scions.training.estimate as estimates
from scions.data import read
from scions.training import plan


def test_time_has_its_parts_and_memory_is_the_process(write, short):
    held = psutil.Process().memory_info().rss
    data = str(write("pairs", 200))
    made = plan(data, **short)
    assert made.seconds > 0
    assert made.scoring_seconds > 0
    assert made.baseline_seconds is None
    assert made.memory_bytes > 0.5 * held
    # A second plan in the same process, whose peak no longer rises, says as much.
    again = plan(data, compare_full=True, **short)
    assert again.baseline_seconds > 0
    assert again.memory_bytes > 0.5 * made.memory_bytes
    assert plan(data, compare_full=True, **{**short, "rank": None, "method": "full"}).baseline_seconds is None


def test_a_step_is_measured_without_the_first(write, short, monkeypatch):
    clock, measured = [0.0], []

    def fit(model, trained, sample, dev, recipe, *, on_step, **_):
        measured.append(len(sample))
        for seconds in (50.0, 2.0, 3.0, 2.0):
            clock[0] += seconds
            on_step(None)

    monkeypatch.setattr(estimates, "fit", fit)
    monkeypatch.setattr(estimates, "_encoding", lambda encoder, texts, limit=0: 0.25 * len(texts))
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: clock[0])
    made = plan(str(write("pairs", 200)), **{**short, "epochs": 5})
    assert measured == [6 * short["batch_size"]]
    texts = 2 * made.rows["train"]
    assert made.seconds == pytest.approx(2.0 * made.steps + 0.25 * texts)
    # dev before the first and after each of five epochs; base and adapter on test and on drift pairs; the linear map
    # on train, dev and test; the statistics of the domain.
    dev, test, drift = 2 * made.rows["dev"], 2 * made.rows["test"], 6
    assert made.scoring_seconds == pytest.approx(0.25 * (6 * dev + 2 * (test + drift) + texts + dev + test + texts))


def test_preservation_counts_with_its_steps_and_before_the_first(write, short, monkeypatch):
    clock, measured, asked = [0.0], [], []

    def fit(model, trained, sample, dev, recipe, *, on_step, general, **_):
        measured.append((recipe.preserved, len(general or ())))
        for _ in range(3):
            clock[0] += 2.0
            on_step(None)

    def measure(model, texts, *, seed, limit):
        asked.append(limit)
        clock[0] += 0.5 * limit

    monkeypatch.setattr(estimates, "fit", fit)
    monkeypatch.setattr(estimates, "measure_importance", measure)
    monkeypatch.setattr(estimates, "_encoding", lambda encoder, texts, limit=0: 0.25 * len(texts))
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: clock[0])
    data, asks = str(write("pairs", 400)), {"preserve": "all", "general_texts": "words", "compare_full": True}
    plain, kept = plan(data, **short), plan(data, **short, **asks)
    # 512 of the texts for importance, at half a second, from 64 of them; each of 4000 general texts once, but never
    # more than 32 a step.
    assert 2 * kept.rows["train"] > 512
    assert measured[1:] == [(("distillation", "mask", "contrast"), 4000)] * 2
    assert asked == [64]
    before = 0.5 * 512 + 0.25 * min(4000, 32 * kept.steps)
    assert kept.seconds == pytest.approx(plain.seconds + before)
    dev, test, drift = 2 * kept.rows["dev"], 2 * kept.rows["test"], 6
    assert kept.baseline_seconds == pytest.approx(kept.seconds + 0.25 * (3 * dev + test + drift))


def test_memory_counts_the_vectors_that_are_remembered_of_base_and_adapter(write, short, monkeypatch):
    monkeypatch.setattr(estimates.psutil.Process, "memory_info", lambda self: type("Held", (), {"rss": 0})())
    data = str(write("pairs", 200))
    plain = plan(data, **short)
    general = write("scored", 50, "general")
    more = plan(data, general=str(general), **short)
    drift, texts, wide = 6, len(read(str(general)).texts()), 32
    assert more.memory_bytes - plain.memory_bytes == 2 * 4 * wide * (texts - drift)
    teacher = plan(data, preserve="distillation", general_texts="words", **short)
    assert teacher.memory_bytes - plain.memory_bytes == 4 * wide * min(4000, 32 * teacher.steps)


def test_more_steps_take_more_and_a_general_set_counts(write, short):
    data, general = str(write("pairs", 200)), str(write("scored", 400, "general"))
    few, many = (plan(data, **{**short, "epochs": epochs}) for epochs in (1, 400))
    assert many.seconds > 20 * few.seconds
    assert many.scoring_seconds > 5 * few.scoring_seconds
    assert plan(data, general=general, **short).scoring_seconds > 0


@pytest.mark.parametrize("shape", ["texts", "labelled", "retrieval", "candidates", "binary"])
def test_every_kind_of_data_can_be_planned(write, short, shape):
    made = plan(str(write(shape, 100)), layers=1, **short)
    assert min(made.seconds, made.scoring_seconds, made.memory_bytes) > 0


def test_the_plan_notes_what_would_keep_the_training_from_starting(write, short, publish_adapter, adapters_aside):
    data = str(write("pairs", 100))
    publish_adapter("legal")
    taken = f"{adapters_aside / 'legal'}: exists already"
    assert any(taken in note for note in plan(data, name="legal", **short).notes)
    assert not any(taken in note for note in plan(data, name="legal", force=True, **short).notes)
    assert not any(taken in note for note in plan(data, name="other", **short).notes)
    checkpoint = adapters_aside / ".training-other" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete").touch()
    (checkpoint.parent / "settings.json").write_text("{}")
    assert any("holds checkpoint-3 of an interrupted" in note for note in plan(data, name="other", **short).notes)
    assert checkpoint.exists()
