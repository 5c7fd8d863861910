"""Distillation: general texts keep the vectors of the frozen base.

Source: Li & Hoiem 2016, "Learning without Forgetting" (arXiv 1606.09282), for keeping a model's outputs on other data
while it learns. The teacher is the model itself before the first step, so it costs one pass over the texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F

from scions.encoder.base_info import max_length_of
from scions.engine.precision import autocast, without_dropout
from scions.training.live_encoder import prompt_of
from scions.training.tokens import Tokens, encode_all, encode_pieces

ROWS = 32
# Long texts cost time and add little: a sentence is enough to measure general knowledge.
MAX_LENGTH = 32


def distillation_loss(vectors: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of ``1 - cosine`` between ``[rows, dimensions]`` of the model and of its teacher, a scalar."""
    return (1 - F.cosine_similarity(vectors.float(), teacher, dim=-1)).mean()


class Distillation:
    """A term of the loss: ``weight`` times `distillation_loss` of ``ROWS`` general texts, drawn for every step.

    Args:
        model: the model to train, still equal to the base.
        texts: general texts; without a role, so they get the base's default prompt, where it has one.
        weight: weight of the term.
        seed: seed of the draw; a resumed training draws the same texts.
        packed: whether ``model`` takes packed texts.
        bf16: compute in bf16.
    """

    def __init__(
        self, model: SentenceTransformer, texts: list[str], weight: float, seed: int, packed: bool, bf16: bool
    ) -> None:
        self.model, self.weight, self.seed, self.packed, self.bf16 = model, weight, seed, packed, bf16
        tokenizer: Any = model.tokenizer
        before = prompt_of(model)
        length = MAX_LENGTH + len(tokenizer.tokenize(before))
        texts = [before + text for text in dict.fromkeys(texts)]
        self.tokens = Tokens(model, texts, min(length, max_length_of(model)))
        model.eval()
        with autocast(model.device, bf16):
            self.teacher = torch.from_numpy(encode_all(model, self.tokens, packed))

    def __call__(self, step: int) -> Tensor:
        count = len(self.tokens.ids)
        rng = np.random.default_rng([self.seed, step])
        places = rng.choice(count, min(ROWS, count), replace=False)
        pieces = [
            (piece, {name: value.to(self.model.device) for name, value in features.items()})
            for piece, features in self.tokens.passes(places, self.packed)
        ]
        # The teacher has no dropout, so the student must have none here.
        with autocast(self.model.device, self.bf16), without_dropout(self.model):
            vectors = encode_pieces(self.model, pieces)
        return self.weight * distillation_loss(vectors, self.teacher[places].to(vectors.device))
