"""The linear map: the cheapest baseline, one matrix on the frozen base's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scions.data.shapes import Shape, Table
from scions.encoder.roles import RoleEncoder
from scions.errors import DataError
from scions.evaluation.encoders import CachedEncoder, Encoder, encode_texts
from scions.evaluation.tasks import dev_score
from scions.training.baselines.linear_batches import batches_of
from scions.unit_rows import unit_rows

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
SHRINKAGES = (0.1, 0.3, 0.6, 0.9)
PATIENCE = 3
LINEAR_ROWS = 2000  # training rows of the baseline of an adapter


class LinearMap(RoleEncoder):
    """An encoder: a base encoder followed by ``(x - mean) @ weight``, at unit length.

    Attributes:
        weight: ``[dimensions, dimensions]``.
        mean: ``[dimensions]``.
        chosen: the setting that scored best on dev, ``"identity"`` where none beat the base.
        base_score: `dev_score` x100 of the base.
        dev_score: `dev_score` x100 of the map.
    """

    def __init__(self, base: Encoder, weight: np.ndarray, mean: np.ndarray | None = None) -> None:
        self.base, self.weight = base, np.asarray(weight, dtype=np.float32)
        self.mean = np.zeros(len(self.weight), dtype=np.float32) if mean is None else mean
        self.chosen, self.base_score, self.dev_score = "identity", float("nan"), float("nan")

    def encode_role(self, role: str | None, sentences: Sequence[str], **options: Any) -> np.ndarray:
        """Return unit vectors `[n, dimensions]`; ``batch_size`` is passed on to the base."""
        vectors = encode_texts(self.base, sentences, batch_size=int(options.get("batch_size", 64)), role=role)
        return unit_rows((vectors.of(sentences) - self.mean) @ self.weight)


def fit_linear_map(
    encoder: Encoder, train: Table, dev: Table, *, seed: int = 0, epochs: int = 10, batch_size: int = 64
) -> LinearMap:
    """Fit the map on train and choose its setting on dev by `dev_score`; the identity is among the choices.

    Starts at the identity. Objectives by shape: CoSENT for scored and binary rows; InfoNCE with in-batch negatives for
    pairs, triplets, retrieval and candidates; supervised contrast for labelled rows; whitening for plain texts (ZCA,
    covariance shrunk towards its mean variance), with four shrinkages instead of four learning rates.

    Raises:
        DataError: train has too few rows.
    """
    if len(train) == 0:
        raise DataError(f"{train.source}: there are no rows to learn a linear map from.")
    frozen = CachedEncoder(encoder)
    width = frozen.of([next(train.row_texts())[0]], None, batch_size).shape[1]
    best = LinearMap(frozen, np.eye(width))
    base_score = best.dev_score = dev_score(best, dev, batch_size=batch_size, seed=seed)

    def offer(weight: np.ndarray, mean: np.ndarray | None, name: str) -> float:
        """Score a map on dev, and keep the best."""
        nonlocal best
        tried = LinearMap(frozen, weight, mean)
        tried.dev_score = dev_score(tried, dev, batch_size=batch_size, seed=seed)
        tried.chosen = name
        if tried.dev_score > best.dev_score:
            best = tried
        return tried.dev_score

    def descend(rate: float) -> None:
        """Run AdamW from the identity, offering each epoch's map; stop after three without a gain."""
        weight = torch.eye(width, requires_grad=True)
        optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=0.0)
        batches = batches_of(train, lambda texts, role: frozen.of(texts, role, batch_size), seed)
        highest, idle = float("-inf"), 0
        for epoch in range(1, epochs + 1):
            for loss_of in batches():
                optimizer.zero_grad()
                loss_of(lambda x: torch.nn.functional.normalize(x @ weight, dim=1)).backward()
                optimizer.step()
            score = offer(weight.detach().numpy().copy(), None, f"learning rate {rate:g}, epoch {epoch}")
            highest, idle = (score, 0) if score > highest else (highest, idle + 1)
            if idle == PATIENCE:
                return

    if train.shape is Shape.TEXTS:
        vectors = frozen.of(train.texts(), None, batch_size)
        for shrinkage in SHRINKAGES:
            offer(*_whitening(vectors, shrinkage), f"whitening, shrinkage {shrinkage:g}")
    else:
        for rate in RATES:
            descend(rate)
    best.base, best.base_score = encoder, base_score
    return best


def _whitening(vectors: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    mean = vectors.mean(axis=0)
    centered = (vectors - mean).astype(np.float64)
    covariance = centered.T @ centered / len(vectors)
    level = float(np.trace(covariance)) / len(covariance)
    values, axes = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance)))
    return (axes / np.sqrt(np.maximum(values, 1e-12))) @ axes.T, mean
