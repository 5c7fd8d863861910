"""Plain texts: two copies of a text, each without half of its tokens, are each other's positive.

Sources: Wang et al. 2021 (TSDAE, arXiv 2104.06979), where deleting 60 % of the words is the noise that teaches most;
Yan et al. 2021 (ConSERT, arXiv 2105.11741), where two such copies are contrasted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scions.training.batches import PlannedSteps
from scions.training.tokens import Tokens

DELETED = 0.5  # chance of each token


class DeletionSteps(PlannedSteps):
    """One item a step, as `PlannedSteps`, of copies that are drawn from ``seed`` and the step's number alone."""

    def __init__(self, *args: Any, seed: int, prompt: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        tokenizer = self.tokens.tokenizer
        self.special = frozenset(tokenizer.all_special_ids)
        # A prompt is no part of the text: it stays.
        self.prompt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0

    def __getitem__(self, step: int) -> dict[str, Any]:
        """As `PlannedSteps`; every place in the columns is a copy of its own."""
        columns = self.batches[step].columns
        rng = np.random.default_rng([self.seed, step])
        copies = [self._copy(self.tokens.ids[place], rng) for place in columns.ravel()]
        tokens = Tokens.of_ids(self.tokens.tokenizer, copies)
        return {
            "pieces": [
                (torch.from_numpy(piece.copy()), tokens.features(piece, self.packed))
                for piece in tokens.pieces(np.arange(len(copies)))
            ],
            "index": torch.arange(columns.size).reshape(columns.shape),
            "mask": torch.from_numpy(self.false_negatives(self.batches[step])),
        }

    def _copy(self, ids: list[int], rng: np.random.Generator) -> list[int]:
        stays = rng.random(len(ids)) >= DELETED
        stays |= np.fromiter((one in self.special for one in ids), bool, len(ids))
        own = np.flatnonzero([one not in self.special for one in ids])
        stays[own[: self.prompt]] = True
        own = own[self.prompt :]
        if len(own) and not stays[own].any():
            stays[rng.choice(own)] = True  # never nothing
        return [one for one, kept in zip(ids, stays, strict=True) if kept]
