"""Score the model on development rows after each epoch, and keep the best epoch's weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from scions.data import Shape, Table
from scions.encoder.query_side import QuerySideEncoder
from scions.evaluation import CachedEncoder, dev_score
from scions.training.live_encoder import LiveEncoder
from scions.training.query_side import DocumentVectors
from scions.training.recipe import Recipe


class BestEpoch:
    """The scores of all epochs, and the trained tensors of the best one.

    ``score`` returns the current development score, higher is better; None: keep the last weights.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], score: Callable[[], float] | None) -> None:
        self.parameters, self.score = parameters, score
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.seconds = 0.0

    def check(self, step: int) -> None:
        """Score the model after ``step`` steps and copy its weights if they are the best so far."""
        if self.score is None:
            return
        start = time.perf_counter()
        value = self.score()
        # An undefined score (all vectors equal, say) is never the best.
        previous = [entry["score"] for entry in self.history if entry["step"] > 0 and math.isfinite(entry["score"])]
        self.history.append({"step": step, "score": value})
        if step > 0 and math.isfinite(value) and (not previous or value > max(previous)):
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.seconds += time.perf_counter() - start

    def use_best(self) -> None:
        """Put the best weights into the model."""
        if self.best is not None:
            copy_into(self.parameters, self.best)


@torch.no_grad()
def copy_into(parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor]) -> None:
    """Copy ``tensors`` into parameters of the same names."""
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def dev_scorer(
    model: SentenceTransformer, dev: Table, recipe: Recipe, bf16: bool, seed: int, index: DocumentVectors | None
) -> Callable[[], float]:
    """Return a function that scores ``model`` as it is on a sample of ``dev``."""
    rows = sample_dev_rows(dev, seed)
    encoder: Any = LiveEncoder(model, recipe.max_length, bf16)
    if index is not None:  # documents do not change: they are encoded in the first epoch only
        encoder = QuerySideEncoder(encoder, CachedEncoder(index.encoder(bf16)))

    def score() -> float:
        return dev_score(encoder, rows, seed=seed)

    return score


def sample_dev_rows(dev: Table, seed: int, rows: int = 1000, documents: int = 1500) -> Table:
    """Draw few enough rows to score after every epoch; a retrieval corpus keeps all relevant documents."""
    rng = np.random.default_rng(seed)
    if dev.shape is Shape.RETRIEVAL:
        rows = min(rows, 300)
    if len(dev) > rows:
        dev = dev.take(np.sort(rng.choice(len(dev), rows, replace=False)).tolist())
    if dev.shape is Shape.RETRIEVAL and dev.corpus is not None and len(dev.corpus) > documents:
        needed = {name for judged in dev.columns["relevant"] for name in judged}
        others = [name for name in dev.corpus if name not in needed]
        extra = rng.choice(len(others), max(0, min(len(others), documents - len(needed))), replace=False)
        keep = needed | {others[i] for i in extra}
        corpus = {name: text for name, text in dev.corpus.items() if name in keep}
        dev = Table(dev.shape, dev.columns, dev.source, corpus, dev.group, dev.notes)
    return dev
