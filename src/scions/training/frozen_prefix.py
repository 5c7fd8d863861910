"""Compute the hidden states below the lowest adapter once.

Layers without an adapter give the same hidden states in every epoch, as long as dropout is off. With adapters only in
the upper layers, training then starts in the middle of the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from scions.engine.forward import PackedLayout, run_layers
from scions.engine.precision import autocast
from scions.training.tokens import Tokens

# Beyond this the states are computed in every step instead: small machines run out of memory first.
MAX_PREFIX_BYTES = 2 * 1024**3


class FrozenPrefix:
    """The input of layer ``first`` for every text.

    Args:
        model: a SentenceTransformer that `scions.engine.forward` supports.
        tokens: the texts.
        first: number of the lowest trained layer.
        bf16: compute and store in bf16.
    """

    def __init__(self, model: SentenceTransformer, tokens: Tokens, first: int, bf16: bool) -> None:
        self.first = first
        self._starts = np.cumsum(tokens.lengths) - tokens.lengths
        self._lengths = tokens.lengths
        width = int(model[0].auto_model.config.hidden_size)  # type: ignore[union-attr]
        kind = torch.bfloat16 if bf16 else torch.float32
        self._states = torch.empty(int(tokens.lengths.sum()), width, dtype=kind)
        transformer: Any = model[0].auto_model
        model.eval()
        with torch.no_grad(), autocast(model.device, bf16):
            for piece in tokens.pieces(np.arange(len(tokens.ids))):
                features = {k: v.to(model.device) for k, v in tokens.features(piece, packed=True).items()}
                hidden = run_layers(
                    transformer, features["input_ids"], PackedLayout.of(features["lengths"]), last=first
                )
                self._states[self._places(piece)] = hidden.to("cpu", kind)

    @staticmethod
    def size_of(model: SentenceTransformer, tokens: int, bf16: bool) -> int:
        """Return the bytes that the states of so many tokens take; 0 beyond ``MAX_PREFIX_BYTES``: they are not kept."""
        size = tokens * int(model[0].auto_model.config.hidden_size) * (2 if bf16 else 4)  # type: ignore[union-attr]
        return size if size <= MAX_PREFIX_BYTES else 0

    def of(self, places: np.ndarray) -> torch.Tensor:
        """Return ``[tokens, width]`` of the texts at ``places``, one after another."""
        return self._states[self._places(places)]

    def _places(self, places: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(
            np.concatenate([np.arange(self._starts[i], self._starts[i] + self._lengths[i]) for i in places])
        )
