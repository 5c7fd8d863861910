"""Train adapters: from a file of rows to a published adapter with a verdict."""

from scions.deprecation import renamed_names
from scions.training.fit import FitResult
from scions.training.options import TrainOptions
from scions.training.prepare import Plan
from scions.training.recipe import Recipe
from scions.training.run import TrainResult, plan, train
from scions.training.train_callback import Step
from scions.training.trainer import TrainingDiverged

__all__ = ["FitResult", "Plan", "Recipe", "Step", "TrainOptions", "TrainResult", "TrainingDiverged", "plan", "train"]

__getattr__ = renamed_names(
    __name__,
    Fitted="scions.training.FitResult",
    Result="scions.training.TrainResult",
    Verdict="scions.evaluation.verdict.Verdict",
)
