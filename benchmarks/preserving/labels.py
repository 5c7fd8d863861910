"""Adapt on a task's unlabeled texts, then learn from few labels, as in Ke et al. 2022.

Each draw takes ``SHOTS`` labelled training rows a class; a logistic regression on the vectors is scored on the test
rows by macro-F1. Draws are the same for every way, so ways are compared draw by draw.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from adaptation.cells import SCORING_LENGTH, Limits, recipe_for

from scions.data import Shape, Table, read
from scions.store import load_base
from scions.training.fit import fit
from scions.training.live_encoder import LiveEncoder
from scions.training.trainable import make_trainable

TASKS = ("chemprot", "scierc_rel", "acl_arc")
WAYS = {"blind": "none", "informed": "mask,contrast", "distilled": "distillation", "all": "all"}
CELLS = (("none", "base"), *((method, way) for method in ("houlsby", "full") for way in WAYS))
SHOTS, DRAWS = 16, 20


def run(task: str, method: str, way: str, limits: Limits) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The cell's record, and the macro-F1 of every draw."""
    import torch

    start = time.perf_counter()
    folder = limits.data / "tasks" / task
    train, test = (read(str(folder / f"{part}.jsonl"), shape="labelled") for part in ("train", "test"))
    texts = Table(Shape.TEXTS, {"text": train.columns["text"][: limits.rows or 8000]}, train.source)
    torch.manual_seed(0)
    model = load_base()
    seconds = 0.0
    if method != "none":
        recipe = recipe_for(texts, method, epochs=1, preserve=WAYS[way])
        with tempfile.TemporaryDirectory() as run_folder, contextlib.redirect_stdout(io.StringIO()):
            seconds = fit(model, make_trainable(model, method), texts, None, recipe, run=Path(run_folder)).seconds
    encoder = LiveEncoder(model, SCORING_LENGTH)
    scores = few_labels(
        encoder.encode(train.columns["text"]),
        np.array(train.columns["label"]),
        encoder.encode(test.columns["text"]),
        np.array(test.columns["label"]),
    )
    record = {
        "stage": "labels",
        "task": task,
        "method": method,
        "way": way,
        "shots": SHOTS,
        "score": float(scores.mean()),
        "seconds": round(seconds, 1),
        "wall_seconds": round(time.perf_counter() - start, 1),
        "told": f"macro-F1 {scores.mean():.2f}",
    }
    return record, {"draws": scores}


def few_labels(train: np.ndarray, labels: np.ndarray, test: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """``[DRAWS]`` macro-F1 x100."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    found = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        rows = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:SHOTS] for label in np.unique(labels)])
        model = LogisticRegression(C=10, max_iter=1000).fit(train[rows], labels[rows])
        found.append(100 * f1_score(gold, model.predict(test), average="macro"))
    return np.array(found)
