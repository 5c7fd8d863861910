"""Measure pairs a second of query-side, two-sided and full training and of sentence-transformers, each in a process."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from adaptation.cells import Limits
from adaptation.domains import Parts
from adaptation.query_side_cells import SIDES, index_of, parts_of, recipe_of
from adaptation.records import PeakMemory
from adaptation.speed import Timer
from scions.data import Shape, Table
from scions.training.examples import to_examples

SPEED_SIDES = ("query-side", "sentence-transformers", "two-sided", "full")
ROUNDS = (1, 2, 3)
WARM_UP, MEASURED = 5, 40
ROWS = 600
WHAT = {
    "query-side": "fit with the shipped recipe, queries alone; with preparation: the documents' vectors computed too",
    "two-sided": "fit with the shipped recipe, both sides, one mined negative a row",
    "full": "the same, all parameters",
    "sentence-transformers": "SentenceTransformerTrainer, full fine-tuning, its default fp32 and collator, "
    "MultipleNegativesRankingLoss on the same pairs, batch size and length of the two-sided recipe",
}


def measure(side: str, domain: str, limits: Limits, batch_size: int | None = None) -> dict[str, Any]:
    """Pairs a second over the measured steps and over the whole call, and peak memory beyond the loaded base.

    ``batch_size``: of the query-side, as its quality cell had it.
    """
    parts = parts_of(SIDES[domain], limits, ROWS)
    timer, steps = Timer(), WARM_UP + MEASURED
    whole, memory, batch, length = (_theirs if side == "sentence-transformers" else _ours)(
        side, domain, parts, timer, steps, batch_size
    )
    measured = timer.stamps[-1] - timer.stamps[WARM_UP - 1]
    return {
        "side": side,
        "what": WHAT[side],
        "domain": domain,
        "training_rows": len(parts.train),
        "batch_size": batch,
        "max_length": length,
        "steps": len(timer.stamps),
        "warm_up_steps": WARM_UP,
        "pairs_per_second": round((len(timer.stamps) - WARM_UP) * batch / measured, 2),
        "pairs_per_second_with_preparation": round(len(timer.stamps) * batch / whole, 2),
        "peak_memory_mib": memory,
    }


def _ours(
    side: str, domain: str, parts: Parts, timer: Timer, steps: int, batch_size: int | None
) -> tuple[float, float, int, int]:
    from scions.store import load_base
    from scions.training.fit import fit
    from scions.training.trainable import make_trainable

    model, memory = load_base(), PeakMemory()
    given = {"batch_size": batch_size} if batch_size and side == "query-side" else {}
    recipe = recipe_of(model, parts, side, **given)
    pairs = _pairs(parts, recipe.batch_size)
    recipe.epochs = steps / (len(pairs) // recipe.batch_size)
    index = index_of(SIDES[domain], None) if side == "query-side" else None
    memory.start()
    trained = make_trainable(model, "full" if side == "full" else "houlsby")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        fit(model, trained, pairs, None, recipe, run=Path(folder), on_step=timer, index=index)
    return time.perf_counter() - start, memory.mib(), recipe.batch_size, recipe.max_length


def _theirs(
    side: str, domain: str, parts: Parts, timer: Timer, steps: int, batch_size: int | None
) -> tuple[float, float, int, int]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from scions.store import load_base

    class Stamp(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            timer()

    model, memory = load_base(), PeakMemory()
    recipe = recipe_of(model, parts, "two-sided")
    rows = Dataset.from_dict(_pairs(parts, recipe.batch_size).columns)
    model.max_seq_length = recipe.max_length
    memory.start()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=recipe.batch_size,
            dataloader_drop_last=True,
            learning_rate=2e-5,
            warmup_steps=0.1,
            use_cpu=model.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=rows, loss=loss, callbacks=[Stamp()]
        )
        start = time.perf_counter()
        trainer.train()
    return time.perf_counter() - start, memory.mib(), recipe.batch_size, recipe.max_length


def _pairs(parts: Parts, batch_size: int) -> Table:
    """The training pairs as rows of two texts, so many that every step of every side has a whole batch.

    The recipe stays that of the retrieval data, with its mined negative.
    """
    examples = to_examples(parts.train, "contrastive")
    kept = max(1, len(examples) // batch_size) * batch_size
    rows = np.resize(examples.columns[:, :2], (kept, 2))
    texts = [[examples.texts[place] for place in column] for column in rows.T]
    return Table(Shape.PAIRS, {"anchor": texts[0], "positive": texts[1]}, parts.train.source)
