"""Encode with a model while it trains: in bf16 where the hardware has it, texts of similar length together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.encoder.base_info import max_length_of
from scions.encoder.roles import RoleEncoder
from scions.engine.forward import packed_forward, supports
from scions.engine.precision import autocast
from scions.evaluation import CachedEncoder
from scions.training.tokens import Tokens, encode_all


class LiveEncoder(RoleEncoder):
    """Unit vectors of the model as it is, also in training mode, without gradients.

    ``max_length`` None: what the base reads. ``bf16``, where the hardware has it, is not for published figures.
    """

    def __init__(self, model: SentenceTransformer, max_length: int | None = None, bf16: bool = True) -> None:
        self.model, self.max_length, self.bf16 = model, max_length or max_length_of(model), bf16

    def encode_role(
        self, role: str | None, sentences: Sequence[str], *, prompt: str | None = None, **_: Any
    ) -> np.ndarray:
        """Return vectors ``[sentences, dimensions]``, float32, of unit length, with ``prompt`` or the base's own."""
        before = prompt_of(self.model, role) if prompt is None else prompt
        training = self.model.training
        self.model.eval()
        try:
            packed = supports(self.model)
            with autocast(self.model.device, self.bf16), packed_forward(self.model) if packed else nullcontext():
                texts = [before + text for text in sentences] if before else sentences
                return encode_all(self.model, Tokens(self.model, texts, self.max_length), packed)
        finally:
            self.model.train(training)


def exact_encoder(model: SentenceTransformer) -> CachedEncoder:
    """Return an encoder for published figures: float32, at the base's own length, each text encoded once."""
    return CachedEncoder(LiveEncoder(model, bf16=False))


def prompt_of(model: SentenceTransformer, role: str | None = None) -> str:
    """Return the base's prompt for texts of ``role`` (None: its default prompt); empty where it has none."""
    return (model.prompts or {}).get(role or model.default_prompt_name or "") or ""
