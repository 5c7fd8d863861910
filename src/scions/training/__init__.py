"""Recipes, the training itself, checkpoints, the verdict and the card."""

from scions.deprecation import renamed_names
from scions.training.fit import FitResult, Step
from scions.training.prepare import Plan
from scions.training.recipe import Recipe
from scions.training.run import TrainResult, plan, train
from scions.training.trainer import TrainingDiverged

__all__ = ["FitResult", "Plan", "Recipe", "Step", "TrainResult", "TrainingDiverged", "plan", "train"]

__getattr__ = renamed_names(
    __name__,
    Fitted="scions.training.FitResult",
    Result="scions.training.TrainResult",
    Verdict="scions.evaluation.verdict.Verdict",
)
