"""Full fine-tuning as a baseline: all parameters of the base, with the adapter's recipe at its own learning rate."""

from __future__ import annotations

from dataclasses import replace

from sentence_transformers import SentenceTransformer

from scions.store import load_base
from scions.training.baselines.two_sided import two_sided_recipe
from scions.training.prepare import TrainSetup
from scions.training.recipe import Recipe, default_rate
from scions.training.trainable import TrainableParameters, make_trainable

FULL = "full fine-tuning"


def full_fine_tuning(setup: TrainSetup) -> tuple[SentenceTransformer, TrainableParameters, Recipe]:
    """Return a base, all its parameters, and the recipe to train them with, on both sides."""
    model = load_base(setup.base_path)
    recipe = setup.plan.recipe if setup.index is None else two_sided_recipe(setup)
    return model, make_trainable(model, "full"), replace(recipe, learning_rate=default_rate("full", recipe.objective))
