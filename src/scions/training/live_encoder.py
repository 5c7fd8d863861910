"""A model behind `.encode` for scoring while it trains: bf16 where native, pieces of like length."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.encoder.roles import RoleEncoder
from scions.engine.forward import packed_forward, supports
from scions.engine.precision import autocast
from scions.training.tokens import Tokens, encode_all


class LiveEncoder(RoleEncoder):
    """Normalised vectors of the model as it is, without gradients; not for published figures."""

    def __init__(self, model: SentenceTransformer, max_length: int, bf16: bool = True) -> None:
        self.model, self.max_length, self.bf16 = model, max_length, bf16

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


def prompt_of(model: SentenceTransformer, role: str | None = None) -> str:
    """The prompt the base puts before texts of ``role``, None: of no role, its default; empty where it has none."""
    return (model.prompts or {}).get(role or model.default_prompt_name or "") or ""
