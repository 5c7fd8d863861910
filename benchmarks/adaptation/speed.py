"""Measure training speed and memory of one side, in a separate process."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from adaptation.cells import Limits, recipe_for
from adaptation.domains import DOMAINS, load
from adaptation.records import PeakMemory

SIDES = {
    "patents": ("houlsby", "sentence-transformers", "upper", "full", "lora", "pfeiffer"),
    "medical": ("houlsby", "sentence-transformers", "upper"),
}
ROUNDS = (1, 2, 3)
ROWS = {"patents": 3000, "medical": 600}
WARM_UP, MEASURED = 5, 40
WHAT = {
    "houlsby": "fit with the shipped default for adapters",
    "upper": "the same, adapters in the upper three layers only",
    "full": "full fine-tuning in the same way: bf16, packed, no dropout",
    "lora": "LoRA of equal size, likewise",
    "pfeiffer": "Pfeiffer adapters of equal size, likewise",
    "sentence-transformers": "SentenceTransformerTrainer, full fine-tuning, its default fp32, collator and CoSENTLoss",
}


def measure(side: str, domain: str, limits: Limits) -> dict[str, Any]:
    """Pairs a second over the measured steps and over the whole call, and peak memory beyond the loaded base."""
    rows = min(ROWS[domain], limits.rows or ROWS[domain])
    train = load(DOMAINS[domain], limits.data, rows).train
    recipe = recipe_for(train, "houlsby")
    # Whole batches only, so that every step of either side has the same number of pairs.
    train = train.take(range(len(train) // recipe.batch_size * recipe.batch_size))
    steps = WARM_UP + MEASURED
    recipe.epochs = steps / (len(train) // recipe.batch_size)
    timer = Timer()
    ours = side != "sentence-transformers"
    whole, memory = (_ours if ours else _theirs)(train, recipe, timer, side, steps)
    measured = timer.stamps[-1] - timer.stamps[WARM_UP - 1]
    pairs = (len(timer.stamps) - WARM_UP) * recipe.batch_size
    return {
        "side": side,
        "what": WHAT[side],
        "domain": domain,
        "training_rows": len(train),
        "batch_size": recipe.batch_size,
        "max_length": recipe.max_length,
        "steps": len(timer.stamps),
        "warm_up_steps": WARM_UP,
        "pairs_per_second": round(pairs / measured, 2),
        "pairs_per_second_with_preparation": round(len(timer.stamps) * recipe.batch_size / whole, 2),
        "peak_memory_mib": memory,
    }


class Timer:
    """When each step ended."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def __call__(self, *_: Any) -> None:
        self.stamps.append(time.perf_counter())


def _ours(train: Any, recipe: Any, timer: Timer, side: str, steps: int) -> tuple[float, float]:
    from adaptation.cells import UPPER_LAYERS
    from scions.store import load_base
    from scions.training.fit import fit
    from scions.training.trainable import make_trainable

    model, memory = load_base(), PeakMemory()
    memory.start()
    upper = side == "upper"
    trained = make_trainable(model, "houlsby" if upper else side, layers=UPPER_LAYERS if upper else None)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        fit(model, trained, train, None, recipe, run=Path(folder), on_step=timer)
    return time.perf_counter() - start, memory.mib()


def _theirs(train: Any, recipe: Any, timer: Timer, side: str, steps: int) -> tuple[float, float]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss
    from transformers import TrainerCallback

    from scions.store import load_base

    class Stamp(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            timer()

    columns = dict(train.columns)
    columns["score"] = [float(value) for value in columns.pop("label", columns.get("score"))]
    rows = Dataset.from_dict({name: columns[name] for name in ("sentence1", "sentence2", "score")})
    model, memory = load_base(), PeakMemory()
    model.max_seq_length = recipe.max_length
    memory.start()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=2e-5,
            warmup_steps=0.1,
            use_cpu=model.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=rows, loss=CoSENTLoss(model), callbacks=[Stamp()]
        )
        start = time.perf_counter()
        trainer.train()
    return time.perf_counter() - start, memory.mib()


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each domain and side of ours: median and spread of speed and memory against sentence-transformers."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["domain"], cell["side"]), {})[cell["round"]] = cell
    rows = []
    for (domain, side), ours in sorted(found.items()):
        theirs = found.get((domain, "sentence-transformers"), {})
        rounds = sorted(set(ours) & set(theirs))
        if side == "sentence-transformers" or not rounds:
            continue
        row: dict[str, Any] = {"domain": domain, "side": side, "rounds": len(rounds)}
        for key, name in (
            ("pairs_per_second", "speed"),
            ("pairs_per_second_with_preparation", "speed_with_preparation"),
            ("peak_memory_mib", "memory"),
        ):
            ratios = [ours[i][key] / theirs[i][key] for i in rounds]
            row[f"{name}_ratio"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
            row[key] = statistics.median(ours[i][key] for i in rounds)
            row[f"{key}_sentence_transformers"] = statistics.median(theirs[i][key] for i in rounds)
        rows.append(row)
    return rows
