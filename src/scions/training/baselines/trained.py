"""Baselines with the adapter's recipe: all parameters of the base, or an adapter whose documents are embedded anew."""

from __future__ import annotations

from dataclasses import replace

from sentence_transformers import SentenceTransformer

from scions.encoder.base_info import max_length_of
from scions.store import load_base
from scions.training.prepare import TrainSetup, token_lengths
from scions.training.recipe import Recipe, choose_recipe, default_rate
from scions.training.trainable import TrainableParameters, make_trainable

FULL, TWO_SIDED = "full fine-tuning", "two-sided adapter"


def full_fine_tuning(setup: TrainSetup) -> tuple[SentenceTransformer, TrainableParameters, Recipe]:
    """Return a base, all its parameters, and the recipe at their own learning rate, on both sides."""
    model = load_base(setup.base_path)
    recipe = setup.plan.recipe if setup.index is None else _two_sided_recipe(setup)
    return model, make_trainable(model, "full"), replace(recipe, learning_rate=default_rate("full", recipe.objective))


def two_sided_adapter(setup: TrainSetup) -> tuple[SentenceTransformer, TrainableParameters, Recipe]:
    """Return a base with an adapter of the same method and rank, what is trained, and the recipe to train it with."""
    model, method = load_base(setup.base_path), setup.plan.method
    rank = None if method == "full" else setup.plan.rank
    return model, make_trainable(model, method, rank=rank, layers=setup.options.layers), _two_sided_recipe(setup)


def _two_sided_recipe(setup: TrainSetup) -> Recipe:
    """Return the recipe for the data of a query-side training with both sides trained, under the same options."""
    lengths, longest = token_lengths(setup.model, setup.examples.texts), max_length_of(setup.model)
    return choose_recipe(
        setup.splits.train.shape, len(setup.examples), lengths, longest, setup.plan.method, **setup.options.recipe
    )
