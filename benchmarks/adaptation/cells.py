"""Compute a cell: train a method on a domain, score it on dev (grid) or on test (final)."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptation.domains import DOMAINS, Domain, Parts, load, overlap_counts
from adaptation.records import PeakMemory, packed, summary
from scions.data import Table
from scions.evaluation import evaluate, evaluate_sts
from scions.store import load_base
from scions.training.baselines.linear_map import fit_linear_map
from scions.training.best_epoch import sample_dev_rows
from scions.training.fit import fit
from scions.training.live_encoder import LiveEncoder
from scions.training.recipe import Recipe, choose_recipe
from scions.training.trainable import DEFAULT_SHARE, make_trainable
from scions.training.trainer import TrainingDiverged

SCORING_LENGTH = 256
UPPER_LAYERS = 3
SCORED_WITH = (
    f"base and adapted model alike: bf16 autocast where native, texts cut at {SCORING_LENGTH} tokens, the weights as "
    "trained in memory"
)


@dataclass(frozen=True)
class Task:
    """What a cell does. ``method`` "upper" is houlsby in the upper three layers.

    ``second_rate``: train with this one as well and keep whichever dev prefers; then test is scored, once.
    """

    stage: str
    domain: str
    method: str
    learning_rate: float | None = None
    seed: int = 0
    second_rate: float | None = None

    @property
    def name(self) -> str:
        parts = [self.stage, self.domain, self.method]
        if self.stage == "grid" and self.learning_rate is not None:
            parts.append(rate_name(self.learning_rate))
        if self.stage == "final" and self.method not in ("base", "linear"):
            parts.append(f"seed{self.seed}")
        return "-".join(parts)


@dataclass(frozen=True)
class Limits:
    """Where the data is, and caps for trying the benchmark out."""

    data: Path
    rows: int | None = None
    test_rows: int | None = None


def rate_name(rate: float) -> str:
    """0.0012 -> "1.2e-3"."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def run(task: Task, limits: Limits) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The cell's record and its per-unit arrays."""
    start = time.perf_counter()
    domain = DOMAINS[task.domain]
    rows = domain.grid_rows if task.stage == "grid" else domain.rows
    parts = load(domain, limits.data, min(rows, limits.rows or rows), limits.test_rows)
    record: dict[str, Any] = {
        "cell": task.name,
        "stage": task.stage,
        "domain": task.domain,
        "method": task.method,
        "learning_rate": task.learning_rate,
        "seed": task.seed,
        "data": limits.data.name,
        "training_rows": 0 if task.method == "base" else len(parts.train),
        "removed_rows": parts.removed,
        "likely_seen_by_base": domain.seen,
    }
    units: dict[str, np.ndarray] = {}
    try:
        encoder = _encoder(task, domain, parts, record)
    except TrainingDiverged as error:
        # A rate at which training diverges is a result: it loses.
        record |= {"error": str(error), "score": None}
    else:
        if task.stage != "grid":
            units = _score(encoder, parts, limits, record)
    record["wall_seconds"] = round(time.perf_counter() - start, 1)
    return record, units


def recipe_for(train: Table, method: str, **overrides: Any) -> Recipe:
    """The recipe the package would choose for these rows."""
    model = load_base()
    texts = list(
        dict.fromkeys(text for texts in train.take(range(min(2000, len(train)))).row_texts() for text in texts)
    )
    lengths = [len(ids) for ids in model.tokenizer(texts)["input_ids"]]
    return choose_recipe(train.shape, len(train), lengths, SCORING_LENGTH, method, **overrides)


def _encoder(task: Task, domain: Domain, parts: Parts, record: dict[str, Any]) -> Any:
    """Train what the task says, note it in the record, and give the encoder to score."""
    import torch

    torch.manual_seed(task.seed)
    if task.method == "base":
        return LiveEncoder(load_base(), SCORING_LENGTH)
    if task.method == "linear":
        model = load_base()
        start = time.perf_counter()
        encoder = LiveEncoder(model, SCORING_LENGTH)
        mapped = fit_linear_map(encoder, parts.train, sample_dev_rows(parts.dev, task.seed), seed=task.seed)
        total = sum(p.numel() for p in model.parameters())
        record["trained"] = {"values": mapped.weight.size, "share": mapped.weight.size / total, "rank": 0}
        record["fit"] = {
            "chosen": mapped.chosen,
            "dev_base": mapped.base_score,
            "dev_best": mapped.dev_score,
            "seconds": round(time.perf_counter() - start, 1),
        }
        return mapped
    best: tuple[Any, dict[str, Any]] | None = None
    tried: dict[str, float] = {}
    for rate in (task.learning_rate, task.second_rate):
        if rate is None:
            continue
        try:
            encoder, trained = _train(task, rate, domain, parts)
        except TrainingDiverged:
            if task.second_rate is None:
                raise
            continue
        tried[rate_name(rate)] = trained["score"]
        if best is None or trained["score"] > best[1]["score"]:
            best = encoder, trained
    if best is None:
        raise TrainingDiverged(f"{task.name}: training diverged with every learning rate")
    record |= best[1]
    if len(tried) > 1:
        record["dev_of_rates"] = tried
    return best[0]


def _train(task: Task, rate: float, domain: Domain, parts: Parts) -> tuple[Any, dict[str, Any]]:
    """An encoder trained with one learning rate, and what there is to say of it; ``score`` is dev's."""
    import torch

    torch.manual_seed(task.seed)
    model = load_base()
    name = "houlsby" if task.method == "upper" else task.method
    recipe = recipe_for(parts.train, name, learning_rate=rate, epochs=domain.epochs, batch_size=domain.batch_size)
    memory = PeakMemory()
    memory.start()
    trained = make_trainable(model, name, layers=UPPER_LAYERS if task.method == "upper" else None)
    if name != "full" and trained.share > DEFAULT_SHARE:
        raise RuntimeError(f"{task.name} trains {trained.share:.2%} of the base, more than {DEFAULT_SHARE:.1%}")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # Everything but the rate is the same for all methods: bf16 where native, no dropout, the same batches.
        done = fit(model, trained, parts.train, parts.dev, recipe, run=Path(folder), seed=task.seed)
    return LiveEncoder(model, SCORING_LENGTH), {
        "learning_rate": rate,
        "recipe": {name: value for name, value in recipe.to_dict().items() if name != "reasons"},
        "trained": {"values": trained.count, "share": trained.share, "rank": trained.rank},
        "fit": {
            "history": done.history,
            "dev_base": done.history[0]["score"],
            "steps": done.steps,
            "rows": done.rows,
            "rows_per_second": round(done.rows_per_second, 2),
            "seconds": round(done.seconds, 1),
            "truncated_texts": done.truncated,
            "texts": done.texts,
            "peak_memory_mib": memory.mib(),
        },
        "score": max(entry["score"] for entry in done.history if entry["step"] > 0),
    }


def _score(encoder: Any, parts: Parts, limits: Limits, record: dict[str, Any]) -> dict[str, np.ndarray]:
    shots = parts.whole_train if parts.test.shape.value == "labelled" else None
    result = evaluate(encoder, parts.test, few_shot=shots)
    record["scored_with"] = SCORED_WITH
    record["result"] = summary(result)
    texts, known, unseen = overlap_counts(parts.whole_train, parts.test)
    record["overlap"] = {"test_texts": texts, "also_in_train": known}
    units = packed(result)
    if known and result.n == len(parts.test) and len(unseen):
        record["overlap"] |= {"unseen_rows": len(unseen), "score_unseen": result.resampled(result.primary, unseen)}
        units["unseen"] = unseen.astype(np.int32)
    if parts.extra is not None:
        record["extra"] = {parts.extra.source.rsplit("/", 1)[-1]: summary(evaluate(encoder, parts.extra))}
    tasks = evaluate_sts(encoder, limits.data / "sts")
    record["sts"] = {name: round(task.value, 3) for name, task in tasks.items()}
    record["score"] = result.value
    return units
