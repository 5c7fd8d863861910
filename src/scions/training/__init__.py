"""Recipes, the training itself, checkpoints, the verdict and the card."""

from scions.training.fit import Fitted, Step
from scions.training.prepare import Plan
from scions.training.recipe import Recipe
from scions.training.run import Result, plan, train
from scions.training.trainer import TrainingDiverged

__all__ = ["Fitted", "Plan", "Recipe", "Result", "Step", "TrainingDiverged", "plan", "train"]
