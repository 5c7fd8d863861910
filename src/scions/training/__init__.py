"""Recipes, the training itself, checkpoints, the verdict and the card."""

from scions.training.fit import FitResult, Step
from scions.training.prepare import Plan
from scions.training.recipe import Recipe
from scions.training.run import TrainResult, plan, train
from scions.training.trainer import TrainingDiverged

__all__ = ["FitResult", "Plan", "Recipe", "Step", "TrainResult", "TrainingDiverged", "plan", "train"]
