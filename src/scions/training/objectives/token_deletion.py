"""Objective for plain texts: two copies of a text, each without half of its tokens, are each other's positive.

Sources: Wang et al. 2021 (TSDAE, arXiv 2104.06979), where deleting 60 % of the words is the best noise; Yan et al. 2021
(ConSERT, arXiv 2105.11741), where two such copies are contrasted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scions.training.batches import PlannedSteps
from scions.training.tokens import Tokens

DELETED = 0.5  # probability for each token


class DeletionSteps(PlannedSteps):
    """One item per step, as in `PlannedSteps`, of copies drawn from ``seed`` and the number of the step alone."""

    def __init__(self, *args: Any, seed: int, prompt: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        tokenizer = self.tokens.tokenizer
        self.special = frozenset(tokenizer.all_special_ids)
        # The prompt is not part of the text: it is never deleted.
        self.prompt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Return the item as `PlannedSteps` does; every place in the columns is another copy."""
        columns = self.batches[step].columns
        rng = np.random.default_rng([self.seed, step])
        copies = [self._copy(self.tokens.ids[place], rng) for place in columns.ravel()]
        tokens = Tokens.of_ids(self.tokens.tokenizer, copies)
        return {
            "pieces": tokens.passes(np.arange(len(copies)), self.packed),
            "index": torch.arange(columns.size).reshape(columns.shape),
            "mask": torch.from_numpy(self.false_negatives(self.batches[step])),
        }

    def _copy(self, ids: list[int], rng: np.random.Generator) -> list[int]:
        stays = rng.random(len(ids)) >= DELETED
        special = np.fromiter((token in self.special for token in ids), bool, len(ids))
        content = np.flatnonzero(~special)
        stays |= special
        stays[content[: self.prompt]] = True
        content = content[self.prompt :]
        if len(content) and not stays[content].any():
            stays[rng.choice(content)] = True  # never an empty text
        return [token for token, stay in zip(ids, stays, strict=True) if stay]
