"""Compute a cell: train on a domain with one way of preservation, score there and on general text."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from adaptation.cells import SCORING_LENGTH, Limits, recipe_for
from adaptation.domains import DOMAINS as ALL
from adaptation.domains import load
from adaptation.records import packed, summary

from scions.data import read
from scions.evaluation import dev_score, evaluate, evaluate_sts
from scions.store import load_base
from scions.training.best_epoch import sample_dev_rows
from scions.training.fit import fit
from scions.training.live_encoder import LiveEncoder
from scions.training.preservation import measure_importance
from scions.training.trainable import make_trainable

DOMAINS = ("patents", "stackoverflow", "medical", "banking77")
NAMED = ("mr", "subj", "trec", "mpqa", "cr")
GRID_ROWS = 2000
FINAL_ROWS = 4000


@dataclass(frozen=True)
class Variant:
    """One way. ``weight``: of distillation, None for the recipe's;
    ``strength``: of the trained adapter, 1 as trained; ``shuffled``: importance in random order; ``rate``:
    learning rate, None for the recipe's."""

    name: str
    preserve: str = "none"
    weight: float | None = None
    texts: str = "docstrings"
    shuffled: bool = False
    strength: float = 1.0
    rate: float | None = None
    method: str = "houlsby"


GRID = (
    Variant("plain"),
    *(Variant(f"docstrings-{w:g}", "distillation", w) for w in (1.0, 3.0)),
    *(Variant(f"docstrings-{w:g}-twice-the-rate", "distillation", w, rate=2.4e-3) for w in (1.0, 3.0)),
)
FINAL = (
    Variant("plain"),
    Variant("distillation-named", "distillation", texts="named"),
    Variant("distillation", "distillation"),
    Variant("mask", "mask"),
    Variant("random-mask", "mask", shuffled=True),
    Variant("contrast", "contrast"),
    Variant("all-named", "all", texts="named"),
    Variant("strength-0.8", strength=0.8),
    Variant("distillation-own", "distillation", texts="own"),
    Variant("full", method="full"),
    Variant("full-mask", "mask", method="full"),
    Variant("full-distillation", "distillation", method="full"),
)


def run(
    stage: str, domain: str, variant: Variant, limits: Limits, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The cell's record and its per-unit arrays."""
    import torch

    start = time.perf_counter()
    rows = min(GRID_ROWS if stage == "grid" else FINAL_ROWS, limits.rows or FINAL_ROWS)
    parts = load(ALL[domain], limits.data, rows, limits.test_rows)
    torch.manual_seed(seed)
    model = load_base()
    recipe = recipe_for(parts.train, variant.method, epochs=ALL[domain].epochs, preserve=variant.preserve)
    recipe.preserve_weight = recipe.preserve_weight if variant.weight is None else variant.weight
    recipe.learning_rate = variant.rate or recipe.learning_rate
    importance = None
    if variant.shuffled:
        importance = measure_importance(model, parts.train.texts(), seed=seed).shuffled(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        recipe.general_texts = _named(limits.data, Path(folder)) if variant.texts == "named" else variant.texts
        trained = make_trainable(model, variant.method)
        before = {name: p.detach().clone() for name, p in trained.parameters.items()}
        done = fit(model, trained, parts.train, parts.dev, recipe, run=Path(folder), seed=seed, importance=importance)
    if variant.strength != 1:
        weaken(trained.parameters, before, variant.strength)
    encoder = LiveEncoder(model, SCORING_LENGTH)
    record: dict[str, Any] = {
        "stage": stage,
        "domain": domain,
        "seed": seed,
        "variant": asdict(variant),
        "recipe": {key: value for key, value in recipe.to_dict().items() if key not in ("reasons", "general_texts")},
        "training_rows": len(parts.train),
        "seconds": round(done.seconds, 1),
        "dev": dev_score(encoder, sample_dev_rows(parts.dev, 0)),
        "general_dev": evaluate(encoder, read(str(limits.data / "sts" / "general_dev.jsonl"))).value,
    }
    units: dict[str, np.ndarray] = {}
    record["told"] = f"dev {record['dev']:.2f}, general dev {record['general_dev']:.2f}"
    if stage == "final":
        result = evaluate(
            encoder, parts.test, few_shot=parts.whole_train if parts.test.shape.value == "labelled" else None
        )
        record["result"] = summary(result)
        units = packed(result)
        record["sts"] = {}
        for name, task in evaluate_sts(encoder, limits.data / "sts").items():
            record["sts"][name] = round(task.value, 3)
        record["score"] = result.value
        record["told"] = f"test {result.value:.2f}, STS7 {sts7(record['sts']):.2f}"
    record["wall_seconds"] = round(time.perf_counter() - start, 1)
    return record, units


def weaken(parameters: dict[str, Any], before: dict[str, Any], strength: float) -> None:
    """Keep ``strength`` of what training changed in the factors that are written through; ``down`` stays."""
    import torch

    with torch.no_grad():
        for name, parameter in parameters.items():
            if "bottleneck_down" not in name:
                parameter.copy_(before[name] + strength * (parameter - before[name]))


def sts7(scores: dict[str, float]) -> float:
    """The mean that the benchmark calls STS7."""
    return scores["STS7"] if "STS7" in scores else float(np.mean([v for k, v in scores.items() if k != "biosses"]))


def _named(data: Path, folder: Path) -> str:
    """A file of sentences a user might name: five public classification sets, none of them in STS."""
    path = folder / "named.txt"
    with open(path, "w", encoding="utf-8") as stream:
        for task in NAMED:
            with open(data / "tasks" / task / "train.jsonl", encoding="utf-8") as rows:
                stream.writelines(" ".join(json.loads(row)["text"].split()) + "\n" for row in rows)
    return str(path)
