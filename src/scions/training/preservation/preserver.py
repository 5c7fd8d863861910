"""Build the parts of preservation that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from scions.training.batches import PlannedSteps
from scions.training.preservation.contrast import Contrast
from scions.training.preservation.distillation import Distillation
from scions.training.preservation.importance import Importance
from scions.training.preservation.soft_mask import scale_first_values, step_scales
from scions.training.recipe import Recipe
from scions.training.trainable import TrainableParameters


@dataclass
class Preserver:
    """Terms of the loss of a step, and factors on the updates of parameters."""

    terms: list[Callable[[int], Tensor]] = field(default_factory=list)
    scaled: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: SentenceTransformer,
        trained: TrainableParameters,
        recipe: Recipe,
        steps: PlannedSteps,
        importance: Importance | None,
        general: list[str] | None,
        seed: int,
        bf16: bool,
    ) -> Preserver:
        """Build the parts that ``recipe.preserve`` names.

        Args:
            model: the model to train, still equal to the base.
            trained: its trained parameters.
            recipe: the settings.
            steps: the planned steps of the training.
            importance: for mask and contrast.
            general: texts for distillation.
            seed: seed of the draw of texts.
            bf16: compute in bf16.
        """
        preserver = cls()
        parts = recipe.preserved
        if "distillation" in parts and general is not None:
            preserver.terms.append(Distillation(model, general, recipe.preserve_weight, seed, steps.packed, bf16))
        if "mask" in parts and importance is not None:
            transformer: Any = model[0].auto_model
            preserver.scaled = step_scales(transformer, trained.parameters, importance)
            scale_first_values(transformer, preserver.scaled)
        if "contrast" in parts and importance is not None:
            preserver.terms.append(_contrast_of_steps(model, importance, recipe.scale, steps, bf16))
        return preserver


def _contrast_of_steps(
    model: SentenceTransformer, importance: Importance, scale: float, steps: PlannedSteps, bf16: bool
) -> Callable[[int], Tensor]:
    contrast = Contrast(model, importance, scale)

    def term(step: int) -> Tensor:
        # A text that occurs twice in a step would be its own negative.
        places = np.array(list(dict.fromkeys(steps.batches[step].columns[:, 0].tolist())))
        features = steps.tokens.features(places, packed=False)
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            return contrast({name: value.to(model.device) for name, value in features.items()})

    return term
