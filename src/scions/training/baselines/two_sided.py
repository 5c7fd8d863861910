"""A two-sided adapter as the baseline of a query-side one: the same method, with documents embedded anew."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer

from scions.encoder.base_info import max_length_of
from scions.store import load_base
from scions.training.prepare import TrainSetup, token_lengths
from scions.training.recipe import Recipe, choose_recipe
from scions.training.trainable import TrainableParameters, make_trainable

TWO_SIDED = "two-sided adapter"


def two_sided_adapter(setup: TrainSetup) -> tuple[SentenceTransformer, TrainableParameters, Recipe]:
    """Return a base with an adapter of the same method and rank, what is trained, and the recipe to train it with."""
    model, method = load_base(setup.base_path), setup.plan.method
    rank = None if method == "full" else setup.plan.rank
    return model, make_trainable(model, method, rank=rank, layers=setup.options.layers), two_sided_recipe(setup)


def two_sided_recipe(setup: TrainSetup) -> Recipe:
    """Return the recipe for the data of a query-side training with both sides trained, under the same options."""
    lengths, longest = token_lengths(setup.model, setup.examples.texts), max_length_of(setup.model)
    return choose_recipe(
        setup.splits.train.shape, len(setup.examples), lengths, longest, setup.plan.method, **setup.options.recipe
    )
