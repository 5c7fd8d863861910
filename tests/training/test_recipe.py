"""Recipe: choices by shape and size, overrides, invalid settings; options of a training."""

from __future__ import annotations

import dataclasses

import pytest

from scions.data import Shape
from scions.errors import ScionsError, UsageError
from scions.training import train
from scions.training.options import TrainKeywords, TrainOptions
from scions.training.recipe import LEARNING_RATES, METHODS, choose_recipe


def _choose(shape="pairs", rows=2000, lengths=(20, 30), longest=256, method="houlsby", **overrides):
    return choose_recipe(Shape.of(shape), rows, list(lengths), longest, method, **overrides)


@pytest.mark.parametrize(
    ("shape", "objective", "negatives"),
    [
        ("pairs", "contrastive", 0),
        ("triplets", "contrastive", 0),
        ("labelled", "contrastive", 0),
        ("candidates", "contrastive", 1),
        ("retrieval", "contrastive", 1),
        ("scored", "cosent", 0),
        ("binary", "cosent", 0),
        ("texts", "deletion", 0),
    ],
)
def test_the_shape_chooses_the_objective(shape, objective, negatives):
    recipe = _choose(shape)
    assert (recipe.objective, recipe.hard_negatives) == (objective, negatives)
    assert recipe.dropout == (objective == "simcse")
    assert set(recipe.reasons) == {"objective", "batch_size", "learning_rate", "epochs", "max_length", "preserve"}
    assert all(recipe.reasons.values())
    assert _choose(shape, objective="simcse").dropout


def test_the_size_chooses_batch_and_epochs():
    assert [_choose(rows=n).batch_size for n in (10, 9_999, 10_000)] == [32, 32, 64]
    assert [_choose(rows=n).epochs for n in (10, 999, 1000, 49_999, 50_000)] == [10.0, 10.0, 3.0, 3.0, 1.0]


def test_the_texts_choose_the_length():
    assert _choose(lengths=[20] * 95 + [500] * 5).max_length == 20
    assert _choose(lengths=[5]).max_length == 16
    assert _choose(lengths=[500] * 10).max_length == 128
    assert _choose(lengths=[500] * 10, longest=64).max_length == 64
    assert _choose(lengths=[]).max_length == 128


@pytest.mark.parametrize("method", METHODS)
def test_the_method_chooses_the_learning_rate(method):
    assert _choose(method=method).learning_rate == LEARNING_RATES[method]


@pytest.mark.parametrize("objective", ["simcse", "deletion"])
def test_texts_alone_bear_a_lower_rate(objective):
    assert _choose("texts", objective=objective).learning_rate == pytest.approx(LEARNING_RATES["houlsby"] / 12)
    assert _choose("pairs", objective=objective).learning_rate == pytest.approx(LEARNING_RATES["houlsby"] / 12)
    assert _choose("texts", objective=objective, learning_rate=0.01).learning_rate == 0.01


def test_given_settings_override_the_recipe():
    recipe = _choose(batch_size=8, learning_rate=0.01, epochs=0.5, max_length=200, objective=None)
    assert (recipe.batch_size, recipe.learning_rate, recipe.epochs, recipe.max_length) == (8, 0.01, 0.5, 200)
    assert recipe.reasons["batch_size"] == "given"
    assert recipe.reasons["objective"] != "given"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "choose from houlsby, pfeiffer"),
        ({"objective": "magic"}, "choose from contrastive, cosent, simcse, deletion"),
        ({"objective": "cosent"}, "pairs data cannot train with 'cosent'; use 'contrastive', 'simcse' or 'deletion'"),
        ({"shape": "scored", "objective": "contrastive"}, "use 'cosent', 'simcse' or 'deletion'"),
        ({"shape": "texts", "objective": "contrastive"}, "use 'deletion' or 'simcse'$"),
        ({"batch_size": 1}, "at least 2"),
        ({"learning_rate": 0}, "between 0 and 1"),
        ({"learning_rate": float("nan")}, "between 0 and 1"),
        ({"epochs": -1}, "above 0"),
        ({"epochs": float("nan")}, "above 0"),
        ({"epochs": float("inf")}, "above 0"),
        ({"max_length": 7}, "8 to 256"),
        ({"max_length": 257}, "8 to 256"),
        ({"colour": "red"}, "'colour' is not a setting"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        _choose(**settings)


def test_options_that_are_none_are_left_to_the_recipe():
    assert TrainOptions.of("d", None, {"epochs": 2, "batch_size": None}).recipe == {"epochs": 2}
    with pytest.raises(UsageError, match="unknown option 'colour'"):
        TrainOptions.of("d", None, {"colour": "red"})


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"unknown option 'learning_rte' of a training; did you mean 'learning_rate'\?"
    ):
        train("d.jsonl", "legal", learning_rte=0.1)


def test_keywords_and_docstring_name_every_option():
    fields = {field.name for field in dataclasses.fields(TrainOptions)}
    assert fields - {"data", "name"} == set(TrainKeywords.__annotations__)
    assert all(name in train.__doc__ for name in fields)
    with pytest.warns(DeprecationWarning, match="adapters="), pytest.raises(ScionsError):
        train("/nowhere/data.jsonl", "legal", output="elsewhere")
