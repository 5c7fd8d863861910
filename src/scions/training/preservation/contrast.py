"""Contrast the full model with its general part, so that vectors hold more than general knowledge.

Source: the contrast of Ke et al. 2022 (DGA, arXiv 2301.08986): two dropout passes of a text through the whole model are
each other's positive; its pass through the general part of the model, heads weighted by their importance, is a
negative, and so are those of the other texts of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F

from scions.training.preservation.importance import Importance, dropout, padded_vectors, weighted_heads

Features = Callable[[Tensor], dict[str, Tensor]]


def contrast_loss(first: Tensor, second: Tensor, general: Tensor, scale: float) -> Tensor:
    """Cross-entropy of each first pass over all second passes and all general passes.

    Args:
        first, second: ``[rows, dimensions]`` of the same texts in two dropout passes.
        general: ``[rows, dimensions]`` of the same texts with heads weighted by importance.
        scale: inverse temperature.

    Returns:
        The mean loss, a scalar.
    """
    first, second, general = (F.normalize(vectors.float(), dim=-1) for vectors in (first, second, general))
    logits = scale * first @ torch.cat([second, general]).T
    return F.cross_entropy(logits, torch.arange(len(first), device=first.device))


class Contrast:
    """The loss of a step's texts, through the padded forward, which supports dropout."""

    def __init__(self, model: SentenceTransformer, importance: Importance, scale: float) -> None:
        self.model, self.importance, self.scale = model, importance, scale

    def __call__(self, features: dict[str, Tensor]) -> Tensor:
        """Return the loss; ``features`` are padded: ``input_ids`` and ``attention_mask``, ``[rows, tokens]``."""
        transformer: Any = self.model[0].auto_model
        with dropout(self.model):
            first, second = (padded_vectors(self.model, features) for _ in range(2))
            with weighted_heads(transformer, self.importance):
                general = padded_vectors(self.model, features)
        return contrast_loss(first, second, general, self.scale)
