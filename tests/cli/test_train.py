"""`scions train`: options passed on, output and exit codes, with a stub for the training."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from scions.cli.options import parse_columns
from scions.cli.train import parse_share
from scions.errors import DataError, Interrupted, UsageError
from scions.evaluation import Interval


def _plan():
    reasons = {"objective": "pairs: the others are negatives", "batch_size": "small data", "epochs": "given"}
    recipe = SimpleNamespace(
        objective="contrastive",
        batch_size=32,
        learning_rate=0.001,
        epochs=3.0,
        max_length=64,
        preserve="distillation",
        preserved=("distillation",),
        general_texts="texts/of [all] kinds.txt",
        reasons=reasons,
    )
    return SimpleNamespace(
        shape="pairs",
        rows={"train": 80, "dev": 10, "test": 20},
        notes=["2 duplicate rows dropped"],
        recipe=recipe,
        method="houlsby",
        rank=87,
        trainable_parameters=817_000,
        trainable_share=0.0361,
        steps=9,
        seconds=75.0,
        scoring_seconds=20.0,
        baseline_seconds=None,
        memory_bytes=1_200_000_000,
        base="org/tiny",
        truncated=3,
        query_side=False,
        documents=None,
    )


def _result(name, outcome="better", path=None):
    base, adapter = Interval(60.0, 55.0, 65.0), Interval(66.0, 61.0, 71.0)
    verdict = SimpleNamespace(
        outcome=outcome,
        summary=f"{outcome}: {name} was measured",
        metric="ndcg@10",
        base=base,
        adapter=adapter,
        difference=Interval(6.0, 2.0, 10.0),
        metrics=[("ndcg@10", base, adapter), ("mrr@10", Interval(50.0, 45.0, 55.0), Interval(56.0, 51.0, 61.0))],
        general={
            "metric": "spearman",
            "before": asdict(Interval(78.9, 78.0, 79.8)),
            "after": asdict(Interval(76.1, 75.0, 77.2)),
            "difference": asdict(Interval(-2.8, -3.9, -1.7)),
        },
        drift=91.5,
        baselines={"linear map": Interval(62.0, 57.0, 67.0)},
        reindexing=None,
        refused=outcome == "worse",
    )
    return SimpleNamespace(
        name=name,
        path=path,
        verdict=verdict,
        manifest=SimpleNamespace(trainable_share=0.0361, rank=87),
        fitted=SimpleNamespace(seconds=252.0, rows_per_second=312.0, truncated=4),
        notes=[],
        examples=[
            _shown("what is [bold]bail?", "a wrong hit", "a right hit", "a right hit", False, True),
            _shown("who pays?", "nobody", "no one", "the buyer", False, False),
        ],
    )


def _shown(query, hit_before, hit_after, right, before_right, after_right):
    return SimpleNamespace(
        query=query,
        hit_before=hit_before,
        hit_after=hit_after,
        right=right,
        before_right=before_right,
        after_right=after_right,
    )


@pytest.fixture
def training(monkeypatch, tmp_path):
    """A fake `scions.training` that records its calls; `outcomes[name]` is an outcome or an error."""
    calls = []
    outcomes = {}
    fake = ModuleType("scions.training")

    def train(data, name, *, on_stage, on_recipe, on_step, **settings):
        calls.append((data, name, settings))
        on_stage("reading")
        on_recipe(_plan())
        on_step(SimpleNamespace(step=9, steps=9, loss=0.5, rows_per_second=312.0, seconds_left=0.0))
        ends = outcomes.get(name, "better")
        if isinstance(ends, BaseException):
            raise ends
        refused = ends == "worse" and not settings["force"]
        return _result(name, ends, None if refused else tmp_path / "adapters" / name)

    def plan(data, *, name, **settings):
        calls.append((data, name, settings))
        return _plan()

    fake.train, fake.plan = train, plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scions.training", fake)
    return SimpleNamespace(calls=calls, outcomes=outcomes)


def test_every_option_reaches_the_training(run, training, tmp_path):
    options = """
        train --data d.jsonl --name legal --base b --method lora --trainable-share 3.6% --layers 2
        --objective simcse --batch-size 16 --learning-rate 2e-3 --epochs 1.5 --max-length 64 --seed 7
        --general g --dev d --test t --shape pairs --columns anchor=q,positive=a --limit 9
        --query-side --documents v.npy --document-texts t.txt --compare-two-sided
        --preserve mask --general-texts own --max-general-loss 2.5
        --resume --force --compare-full --output
    """
    code, _, err = run(
        *options.split(),
        tmp_path,
    )
    assert (code, err.count("Error")) == (0, 0)
    [(data, name, settings)] = training.calls
    assert (data, name) == ("d.jsonl", "legal")
    assert settings == {
        "base": "b",
        "method": "lora",
        "trainable_share": 0.036,
        "rank": None,
        "layers": 2,
        "objective": "simcse",
        "batch_size": 16,
        "learning_rate": 0.002,
        "epochs": 1.5,
        "max_length": 64,
        "seed": 7,
        "general": "g",
        "dev": "d",
        "test": "t",
        "shape": "pairs",
        "columns": {"anchor": "q", "positive": "a"},
        "limit": 9,
        "adapters": tmp_path,
        "resume": True,
        "force": True,
        "compare_full": True,
        "query_side": True,
        "documents": Path("v.npy"),
        "document_texts": Path("t.txt"),
        "compare_two_sided": True,
        "preserve": "mask",
        "general_texts": "own",
        "max_general_loss": 2.5,
    }


def test_without_options_the_training_decides(run, training):
    run("train", "--data", "d.jsonl", "--name", "legal")
    [(_, _, settings)] = training.calls
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    assert given == {"method": "houlsby", "seed": 0}


def test_recipe_result_examples_and_verdict_are_printed(run, training, tmp_path):
    code, out, err = run("train", "--data", "d.jsonl", "--name", "legal")
    assert code == 0
    for part in (
        "pairs: the others are negatives",
        "80 train, 10 dev, 20 test",
        "texts/of [all] kinds.txt",
        "3.61 % of the base is trained",
        "60.00 [55.00, 65.00]",
        "66.00 [61.00, 71.00]",
        "+6.00 [+2.00, +10.00]",
        "62.00 [57.00, 67.00]",
        "78.90 [78.00, 79.80]",
        "-2.80 [-3.90, -1.70]",
        "91.50",
        "what is [bold]bail?",
        "right: a right hit",
        "wrong: a wrong hit",
        "the buyer",
        "rank 87 in 4 min 12 s (312 rows/s, 4 texts cut)",
        f"Published in {tmp_path / 'adapters' / 'legal'}",
    ):
        assert part in out
    assert out.rstrip().endswith("better: legal was measured")
    assert "* reading" in err
    assert "training 9/9, loss 0.500, 312 rows/s" in err
    assert "note: 2 duplicate rows dropped" in err


def test_worse_is_three_unless_forced(run, training):
    training.outcomes["legal"] = "worse"
    code, out, _ = run("train", "--data", "d", "--name", "legal")
    assert code == 3
    assert "Not published" in out
    assert run("train", "--data", "d", "--name", "legal", "--force")[0] == 0


def test_no_measurable_difference_is_published_with_zero(run, training):
    training.outcomes["legal"] = "no measurable difference"
    code, out, _ = run("train", "--data", "d", "--name", "legal")
    assert code == 0
    assert "Published in" in out


def test_several_go_on_after_a_failure_and_end_in_one_table(run, training):
    training.outcomes |= {"second": DataError("b.jsonl:3: broken"), "third": "worse"}
    options = "--data a --name first --data b --name second --data c --name third"
    code, out, err = run("train", *options.split())
    assert code == 1
    assert [call[:2] for call in training.calls] == [("a", "first"), ("b", "second"), ("c", "third")]
    assert "Error: b.jsonl:3: broken" in err
    summary = out.split("All trainings")[1]
    for name, word in (("first", "better"), ("second", "failed"), ("third", "worse")):
        assert any(name in line and word in line for line in summary.splitlines())


def test_several_of_which_one_is_worse(run, training):
    training.outcomes["first"] = "worse"
    assert run("train", *["--data", "a", "--name", "first", "--data", "b", "--name", "second"])[0] == 3
    assert len(training.calls) == 2


def test_ctrl_c_stops_the_others_too(run, training):
    training.outcomes["first"] = Interrupted("stopped at step 3; --resume")
    code, _, err = run("train", *["--data", "a", "--name", "first", "--data", "b", "--name", "second"])
    assert code == 130
    assert "Stopped: stopped at step 3" in err
    assert len(training.calls) == 1


@pytest.mark.parametrize("error", [Interrupted("stopped at step 3; --resume"), KeyboardInterrupt(), RuntimeError("x")])
def test_the_summary_shows_what_is_finished_when_a_later_one_is_stopped(run, training, error):
    training.outcomes["second"] = error
    options = "--data a --name first --data b --name second --data c --name third"
    code, out, err = run("train", *options.split())
    failed = isinstance(error, RuntimeError)
    assert code == (1 if failed else 130)
    summary = out.split("All trainings")[1]
    assert any("first" in line and "better" in line for line in summary.splitlines())
    assert any("second" in line and ("failed" if failed else "stopped") in line for line in summary.splitlines())
    assert "third" not in summary
    assert ("Unexpected error" if failed else "Stopped") in err


def test_a_taken_name_is_found_before_the_first_training(run, training, publish_adapter):
    publish_adapter("second")
    options = "--data a --name first --data b --name second"
    code, _, err = run("train", *options.split())
    assert (code, training.calls) == (2, [])
    assert "second: exists already" in err
    assert run("train", *options.split(), "--force")[0] == 0


def test_resuming_several_skips_what_is_published(run, training, publish_adapter):
    publish_adapter("first")
    code, _, err = run("train", *["--data", "a", "--name", "first", "--data", "b", "--name", "second", "--resume"])
    assert code == 0
    assert [name for _, name, _ in training.calls] == ["second"]
    assert "first: published already" in err


def test_dry_run_trains_nothing(run, training):
    code, out, _ = run("train", *["--data", "d", "--name", "legal", "--dry-run", "--rank", "8"])
    assert code == 0
    [(_, _, settings)] = training.calls
    assert "on_step" not in settings
    assert settings["rank"] == 8
    for part in ("about 1 min 35 s", "training 1 min 15 s, scoring 20 s", "at least 1.2 GB", "Nothing was trained"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--data a --data b --name one", 2, "found 2 --data and 1 --name"),
        ("--data a --data b --name one --name one", 2, "given twice"),
        ("--data a --name ../x", 2, "would lead to another folder"),
        ("--data a --data b --name one --name attention", 2, "part of the model's module paths"),
        ("--data a --name one --trainable-share 3.6", 2, "did you mean 3.6%?"),
        ("--data a --name one --columns anchor", 2, "write role=column"),
        ("--data= --name one", 2, "--data is empty"),
    ],
)
def test_wrong_arguments_are_found_before_anything_is_trained(run, training, arguments, code, message):
    got, _, err = run("train", *arguments.split())
    assert got == code
    assert message in err
    assert training.calls == []


@pytest.mark.parametrize("text", ["3.6%", "3.6 %", "0.036", ".036"])
def test_shares_in_percent_and_as_fractions(text):
    assert parse_share(text) == pytest.approx(0.036)


@pytest.mark.parametrize("text", ["0", "100%", "-1%", "lots", "3.6", "3,6%", ""])
def test_invalid_shares(text):
    with pytest.raises(UsageError, match="--trainable-share"):
        parse_share(text)


def test_columns_may_be_given_at_once_or_apart():
    assert parse_columns(["a=x, b=y z", "c=d=e"]) == {"a": "x", "b": "y z", "c": "d=e"}
    assert parse_columns(None) is None
    with pytest.raises(UsageError, match="twice"):
        parse_columns(["a=x", "a=y"])
