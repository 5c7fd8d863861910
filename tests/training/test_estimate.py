"""What a dry run says a training would take."""

from __future__ import annotations

import psutil
import pytest

import scions.training.estimate as estimates
from scions.training import plan


def test_time_has_its_parts_and_memory_is_the_process(write, short):
    held = psutil.Process().memory_info().rss
    data = str(write("pairs", 200))
    made = plan(data, **short)
    assert made.seconds > 0
    assert made.scoring_seconds > 0
    assert made.rival_seconds is None
    assert made.memory_bytes > 0.5 * held
    # A second plan in the same process, whose peak no longer rises, says as much.
    again = plan(data, compare_full=True, **short)
    assert again.rival_seconds > 0
    assert again.memory_bytes > 0.5 * made.memory_bytes
    assert plan(data, compare_full=True, **{**short, "rank": None, "method": "full"}).rival_seconds is None


def test_a_step_is_measured_without_the_first(write, short, monkeypatch):
    clock, told = [0.0], []

    def fit(model, trained, sample, dev, recipe, *, on_step, **_):
        told.append(len(sample))
        for seconds in (50.0, 2.0, 3.0, 2.0):
            clock[0] += seconds
            on_step(None)

    monkeypatch.setattr(estimates, "fit", fit)
    monkeypatch.setattr(estimates, "_encoding", lambda encoder, texts, most=0: 0.25 * len(texts))
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: clock[0])
    made = plan(str(write("pairs", 200)), **{**short, "epochs": 5})
    assert told == [6 * short["batch_size"]]
    texts = 2 * made.rows["train"]
    assert made.seconds == pytest.approx(2.0 * made.steps + 0.25 * texts)
    # dev before the first and after each of five epochs; base and adapter on test and on drift pairs; the linear map
    # on train, dev and test; the statistics of the domain.
    dev, test, drift = 2 * made.rows["dev"], 2 * made.rows["test"], 6
    assert made.scoring_seconds == pytest.approx(0.25 * (6 * dev + 2 * (test + drift) + texts + dev + test + texts))


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


def test_what_would_keep_the_training_from_beginning_is_noted(write, short, publish_adapter, adapters_aside):
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
