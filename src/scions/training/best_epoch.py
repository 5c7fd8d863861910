"""Keeps the weights of the epoch that scored best on the development rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class BestEpoch:
    """Scores after every epoch, and the trained tensors of the best one.

    Args:
        parameters: the trained tensors.
        score: gives the development score of the model as it is (higher is better); None: keep the last weights.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], score: Callable[[], float] | None) -> None:
        self.parameters, self.score = parameters, score
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.seconds = 0.0

    def check(self, step: int) -> None:
        """Score the model after ``step`` steps; remember its weights if they are the best so far."""
        if self.score is None:
            return
        start = time.perf_counter()
        value = self.score()
        # A score that is no number (all vectors equal, say) is never the best.
        previous = [entry["score"] for entry in self.history if entry["step"] > 0 and math.isfinite(entry["score"])]
        self.history.append({"step": step, "score": value})
        if step > 0 and math.isfinite(value) and (not previous or value > max(previous)):
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.seconds += time.perf_counter() - start

    def restore(self, history: list[dict[str, Any]], best: dict[str, torch.Tensor] | None) -> None:
        """Go on from what a checkpoint holds."""
        self.history, self.best = history, best

    @torch.no_grad()
    def use_best(self) -> None:
        """Put the best weights into the model."""
        if self.best is not None:
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best[name])
