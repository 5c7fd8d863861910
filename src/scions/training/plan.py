"""What a training would do, before it does it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Splits, Table, check_trainable, read_splits
from scions.errors import DataError, UsageError
from scions.evaluation.halves import halves
from scions.store import base_id, load_base, resolve_base
from scions.training.batches import plan_batches
from scions.training.examples import to_examples
from scions.training.methods import Trained, graft
from scions.training.recipe import Recipe, choose_recipe

OPTIONS = ("objective", "batch_size", "learning_rate", "epochs", "max_length")


@dataclass
class Plan:
    """One training, laid out.

    Attributes:
        shape: of the training rows.
        rows: by part: train, dev, test.
        notes: what reading and splitting dropped, repaired or noticed.
        recipe: the settings and their reasons.
        steps: training steps.
        seconds: estimated time of the training itself, or None where nothing was measured.
        memory_bytes: estimated peak of memory beyond the loaded base, or None.
        truncated: training texts longer than ``recipe.max_length`` tokens.
    """

    base: str
    method: str
    shape: str
    rows: dict[str, int]
    notes: list[str]
    recipe: Recipe
    rank: int
    trainable_parameters: int
    trainable_share: float
    steps: int
    truncated: int
    seconds: float | None = None
    memory_bytes: int | None = None


@dataclass
class Prepared:
    """What a training starts from: data read, base loaded, adapter grafted."""

    base_path: str
    model: SentenceTransformer
    splits: Splits
    trained: Trained
    plan: Plan
    lengths: list[int] = field(default_factory=list)


def prepare(
    data: str,
    *,
    base: str | None,
    method: str,
    trainable_share: float | None,
    rank: int | None,
    layers: int | None,
    seed: int,
    dev: str | None,
    test: str | None,
    shape: str | None,
    columns: dict[str, str] | None,
    limit: int | None,
    overrides: dict[str, Any],
) -> Prepared:
    """Read, check and split the data; load the base; choose the recipe; graft the adapter.

    Raises:
        ScionsError: whatever is wrong with data, base or options, before anything is trained.
    """
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, got {seed}")
    splits = read_splits(data, dev=dev, test=test, shape=shape, columns=columns, seed=seed, limit=limit)
    check_trainable(splits.train)
    for part, table in (("dev", splits.dev), ("test", splits.test)):
        if table.shape is Shape.TEXTS:
            halves(table.columns["text"], f"{table.source}, {part} rows")
    base_path = resolve_base(base)
    model = load_base(base_path)
    longest = int(model.max_seq_length or 512)
    probe = to_examples(splits.train, _objective(splits, overrides))
    if len(probe) < 2:
        raise DataError(f"{splits.train.source}: {len(probe)} training row; at least 2 are needed, 50 to be of use")
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(probe.texts), min(4000, len(probe.texts)), replace=False)
    sample = [probe.texts[i] for i in chosen]
    encoded = model.tokenizer(sample, truncation=False, return_attention_mask=False, verbose=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    recipe = choose_recipe(splits.train.shape, len(probe), lengths, longest, method, **overrides)
    trained = graft(model, method, trainable_share, rank, layers)
    steps = len(plan_batches(probe, recipe.batch_size, recipe.epochs, seed))
    over = sum(length > recipe.max_length for length in lengths)
    plan = Plan(
        base=base_id(base),
        method=method,
        shape=splits.train.shape.value,
        rows={"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        notes=list(dict.fromkeys([*splits.notes, *splits.train.notes])),
        recipe=recipe,
        rank=trained.rank,
        trainable_parameters=trained.count,
        trainable_share=trained.share,
        steps=steps,
        truncated=round(over / len(lengths) * len(probe.texts)) if lengths else 0,
    )
    return Prepared(base_path, model, splits, trained, plan, lengths)


def _objective(splits: Splits, overrides: dict[str, Any]) -> str:
    given = overrides.get("objective")
    if given is not None:
        return str(given)
    return "simcse" if splits.train.shape is Shape.TEXTS else "contrastive"


def estimate(prepared: Prepared, run: Path, seed: int) -> None:
    """Time and memory of ``prepared.plan``, from a few real steps; the model's weights are not to be used after.

    The figures exclude reading, scoring and the verdict.
    """
    from scions.training.fit import fit

    plan, rows = prepared.plan, min(len(prepared.splits.train), 6 * prepared.plan.recipe.batch_size)
    before = _peak_bytes()
    sample = _sample(prepared.splits.train, rows)
    recipe = Recipe(**{**plan.recipe.to_dict(), "epochs": 1.0})
    start = time.perf_counter()
    fitted = fit(prepared.model, prepared.trained, sample, None, recipe, run=run, seed=seed)
    seconds = fitted.seconds or time.perf_counter() - start
    plan.seconds = seconds / max(1, fitted.steps) * plan.steps
    plan.memory_bytes = max(0, _peak_bytes() - before)


def _sample(train: Table, rows: int) -> Table:
    """``rows`` rows; of labelled texts those of the most frequent labels, for a label needs two rows to train on."""
    order = list(range(len(train)))
    if train.shape is Shape.LABELLED:
        labels = train.columns["label"]
        counts = Counter(labels)
        order.sort(key=lambda i: (-counts[labels[i]], labels[i]))
    return train.take(sorted(order[:rows]))


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows keeps no such record
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parse_overrides(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's options among ``values`` that were given. Raises UsageError for one that is no option."""
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise UsageError(f"unknown: {', '.join(unknown)}; a recipe takes {', '.join(OPTIONS)}")
    return {name: value for name, value in values.items() if value is not None}
