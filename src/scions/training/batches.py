"""Lay out every batch of a training before it starts.

The plan follows from the seed alone, so a resumed training continues with exactly the batches of an unbroken one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from scions.errors import DataError
from scions.training.examples import Examples
from scions.training.frozen_prefix import FrozenPrefix
from scions.training.tokens import Tokens

# Texts whose base vectors are this close mean the same: one is no negative for the other's anchor.
SAME_TEXT = 0.95


@dataclass
class Batch:
    """Places of texts ``[rows, columns]``, with scores or classes ``[rows]`` where the data has them."""

    columns: np.ndarray
    scores: np.ndarray | None = None
    keys: np.ndarray | None = None


def plan_batches(examples: Examples, batch_size: int, epochs: float, seed: int) -> list[Batch]:
    """Return the batches of all epochs in order, without a last batch of fewer than two rows.

    Raises:
        DataError: labelled texts of which no two share a label.
    """
    if examples.keys is not None and np.bincount(examples.keys).max() < 2:
        raise DataError(
            f"no label has two training rows ({len(examples)} rows, each of another class): texts of one class attract "
            "each other. Give more rows per class, or train on the texts alone with `objective='deletion'`"
        )
    whole, rest = divmod(len(examples), batch_size)
    steps = max(1, round(epochs * max(1, whole + (rest >= 2))))
    batches: list[Batch] = []
    epoch = 0
    while len(batches) < steps:
        rng = np.random.default_rng([seed, epoch])
        rows = _class_pairs(examples, rng) if examples.keys is not None else rng.permutation(len(examples))[:, None]
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            if len(chosen) >= 2 or len(rows) < 2:
                batches.append(_batch(examples, chosen))
        epoch += 1
    return batches[:steps]


def _batch(examples: Examples, rows: np.ndarray) -> Batch:
    first = rows[:, 0]
    if examples.keys is not None:
        return Batch(examples.columns[rows, 0], keys=examples.keys[first])
    return Batch(examples.columns[first], scores=None if examples.scores is None else examples.scores[first])


def _class_pairs(examples: Examples, rng: np.random.Generator) -> np.ndarray:
    """Return pairs ``[rows, 2]`` of rows of one class, the classes in turn so that every batch is balanced."""
    assert examples.keys is not None
    members = [rng.permutation(np.flatnonzero(examples.keys == key)) for key in np.unique(examples.keys)]
    members = [rows for rows in members if len(rows) >= 2]
    pairs: list[tuple[int, int]] = []
    turns = max(1, len(examples) // max(1, len(members)))
    for turn in range(turns):
        for which in rng.permutation(len(members)):
            rows = members[which]
            i = turn % len(rows)
            # The partner is drawn each time: within an epoch a small class gives different pairs.
            j = (i + 1 + rng.integers(len(rows) - 1)) % len(rows)
            pairs.append((rows[i], rows[j]))
    return np.array(pairs)


@dataclass(eq=False)
class PlannedSteps(Dataset):
    """One item per step: the pieces to encode and how their rows form the batch.

    Args:
        batches: the plan.
        tokens: tokenized texts.
        examples: the rows, with the texts known to be relevant.
        vectors: the base's unit vectors ``[texts, dimensions]``, by which near-equal texts are masked.
        distinct: encode a text that occurs twice in a step only once (wrong where dropout makes two passes differ).
        packed: return features for `packed_forward` instead of padded ones.
        prefix: hidden states below the lowest adapter, to start from.
    """

    batches: list[Batch]
    tokens: Tokens
    examples: Examples
    vectors: np.ndarray | None = None
    distinct: bool = True
    packed: bool = False
    prefix: FrozenPrefix | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> dict[str, Any]:
        batch = self.batches[step]
        if self.distinct:
            places, index = np.unique(batch.columns, return_inverse=True)
        else:
            places, index = batch.columns.ravel(), np.arange(batch.columns.size)
        item: dict[str, Any] = {
            "pieces": self._passes(places),
            "index": torch.from_numpy(index.reshape(batch.columns.shape).copy()),
        }
        if batch.scores is not None:
            item["scores"] = torch.from_numpy(batch.scores)
        else:
            item["mask"] = torch.from_numpy(self.false_negatives(batch))
        return item

    def _passes(self, places: np.ndarray) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        passes = self.tokens.passes(places, self.packed)
        if self.prefix is not None:
            for piece, features in passes:
                features["hidden"] = self.prefix.of(places[piece.numpy()])
        return passes

    def false_negatives(self, batch: Batch) -> np.ndarray:
        """Return ``[rows, rows * (columns - 1)]``: True where a candidate must not count as a row's negative.

        Candidates are ordered as in the objective: all positives, then all first negatives, and so on.
        """
        candidates = batch.columns[:, 1:].T.ravel()
        mask = self.not_negatives(batch, candidates)
        if batch.keys is not None:
            mask |= np.tile(batch.keys, batch.columns.shape[1] - 1)[None] == batch.keys[:, None]
        rows = np.arange(len(mask))
        mask[rows, rows] = False
        return mask

    def not_negatives(self, batch: Batch, candidates: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
        """Return ``[rows, candidates]``: True for a row's anchor, its positives, and texts equal to the positive.

        ``vectors`` are those of the candidates, where the caller has gathered them already.
        """
        anchors, positives = batch.columns[:, 0], batch.columns[:, 1]
        mask = (candidates[None] == positives[:, None]) | (candidates[None] == anchors[:, None])
        for row, anchor in enumerate(anchors):
            known = self.examples.relevant.get(int(anchor))
            if known is not None and len(known) > 1:
                mask[row] |= np.isin(candidates, list(known))
        if self.vectors is not None:
            others = self.vectors[candidates] if vectors is None else vectors
            mask |= self.vectors[positives] @ others.T > SAME_TEXT
        return mask
