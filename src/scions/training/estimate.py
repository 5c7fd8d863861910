"""Estimate time and memory of a training from a few real steps and a few encoded texts."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Table
from scions.data.shapes import spread_rows
from scions.encoder.base_info import max_length_of
from scions.engine.batches import BATCH_TOKENS
from scions.engine.forward import supports
from scions.engine.precision import has_bf16
from scions.training.baselines.linear_map import LINEAR_ROWS
from scions.training.baselines.trained import full_fine_tuning, two_sided_adapter
from scions.training.batches import plan_batches
from scions.training.best_epoch import sample_dev_rows
from scions.training.examples import OF_TEXTS
from scions.training.fit import fit
from scions.training.frozen_prefix import FrozenPrefix
from scions.training.live_encoder import LiveEncoder
from scions.training.manifest import DOMAIN_TEXTS
from scions.training.prepare import TrainSetup
from scions.training.preservation import measure_importance
from scions.training.preservation.distillation import MAX_LENGTH, ROWS
from scions.training.preservation.importance import BATCH
from scions.training.preservation.importance import TEXTS as IMPORTANCE_TEXTS
from scions.training.query_side import DocumentVectors
from scions.training.recipe import Recipe
from scions.training.trainable import TrainableParameters

STEPS = 6
TEXTS = 128
Baseline = Callable[[TrainSetup], tuple[SentenceTransformer, TrainableParameters, Recipe]]


def estimate(setup: TrainSetup, run: Path) -> None:
    """Write time and memory into ``setup.plan``; the model's weights must not be used afterwards.

    Time is seconds per step and per text, measured here, times their number. Reading the data, drawing the intervals
    and fitting the linear map are left out: they take seconds, whatever the size. Memory is the peak of the process
    while measuring, and what a whole training is known to hold beyond that: a lower bound, since an allocator also
    keeps what it cannot fill again. ``run`` is a folder for what the measured steps write.
    """
    plan, splits, options = setup.plan, setup.splits, setup.options
    texts, recipe = setup.examples.texts, setup.plan.recipe
    general = list(dict.fromkeys(text for pair in setup.drift_pairs for text in pair))
    if setup.general is not None:
        general = setup.general.texts()
    few_shot = texts[: min(len(splits.train), 1000)] if splits.test.shape is Shape.LABELLED else []
    with _peak_of_memory() as peak:
        step = _seconds_per_step(setup, setup.model, setup.trained, recipe, run, setup.index)
        fast, exact = LiveEncoder(setup.model, recipe.max_length), LiveEncoder(setup.model, bf16=False)
        encode_train = _encoding(fast, texts)
        before = encode_train if recipe.objective == "contrastive" else 0.0
        preserving = _preserving(setup, texts)
        dev = sample_dev_rows(splits.dev, options.seed)
        epochs = 1 + math.ceil(recipe.epochs)  # dev is scored before the first as well
        score_dev = epochs * _encoding(fast, dev.texts())
        score_test = _encoding(exact, splits.test.texts(), _texts_per_piece(setup))
        score_test += _encoding(exact, general) + _encoding(exact, few_shot)
        trained = before + preserving + score_dev + score_test  # of a baseline, beside its steps
        adapter = 1.0  # share of the test texts that the adapter encodes, after the base
        if setup.index is not None:  # documents are encoded once, by the base, at its own length
            base, computed = LiveEncoder(setup.index.base), setup.index.file is None
            before = _encoding(base, texts) * computed
            queries = [row[0] for row in dev.row_texts()]
            score_dev = epochs * _encoding(fast, queries) + _encoding(base, dev.texts()) * computed
            adapter = len(splits.test) / max(1, len(splits.test.texts()))
        linear = encode_train * min(1.0, LINEAR_ROWS / len(splits.train)) + _encoding(fast, splits.dev.texts())
        linear += _encoding(fast, splits.test.texts(), _texts_per_piece(setup))
        statistics_of_domain = encode_train * min(1.0, DOMAIN_TEXTS / len(texts))
        plan.seconds = step * plan.steps + before + preserving
        plan.scoring_seconds = score_dev + (1 + adapter) * score_test + linear + statistics_of_domain
        baselines = []
        if options.trains_full_baseline:
            baselines.append(_baseline_steps(setup, full_fine_tuning, run / "full") + trained)
        if options.compare_two_sided:
            baselines.append(_baseline_steps(setup, two_sided_adapter, run / "two-sided") + trained)
        plan.baseline_seconds = sum(baselines) if baselines else None
    weights = sum(p.numel() * p.element_size() for p in setup.model.parameters())
    models = 2  # beside the one that was measured: the bare base, and the adapter as published
    # The base's vectors of training texts, the teacher's of general ones; base's and adapter's of what is scored.
    scored = len(splits.test.texts()) + len(few_shot) + len(general)
    width = int(setup.model.get_embedding_dimension() or 0)
    vectors = 4 * width * (len(texts) + len(_distilled(setup)) + 2 * scored)
    plan.memory_bytes = peak[0] + models * weights + vectors + _prefix_bytes(setup, len(texts))


def _baseline_steps(setup: TrainSetup, baseline: Baseline, run: Path) -> float:
    """Return seconds of all steps of a baseline."""
    model, trained, recipe = baseline(setup)
    steps = plan_batches(setup.examples, recipe.batch_size, recipe.epochs, setup.options.seed)
    return _seconds_per_step(setup, model, trained, recipe, run) * len(steps)


def _seconds_per_step(
    setup: TrainSetup,
    model: SentenceTransformer,
    trained: TrainableParameters,
    recipe: Recipe,
    run: Path,
    index: DocumentVectors | None = None,
) -> float:
    """Return the median over a few real steps, without the first, which includes what is done once."""
    recipe = replace(recipe, epochs=1.0)
    sample = _sample(setup.splits.train, STEPS * recipe.batch_size)
    moments = [time.perf_counter()]
    fitted = fit(
        model, trained, sample, None, recipe, run=run, seed=setup.options.seed, general=setup.distilled, index=index,
        on_step=lambda _: moments.append(time.perf_counter()),
    )  # fmt: skip
    apart = np.diff(moments[1:])
    return float(statistics.median(apart)) if len(apart) else fitted.seconds / max(1, fitted.steps)


def _preserving(setup: TrainSetup, texts: list[str]) -> float:
    """Return seconds that preservation takes before the first step; what it adds to a step is measured there."""
    seconds = 0.0
    if not {"mask", "contrast"}.isdisjoint(setup.plan.recipe.preserved):
        few = min(len(texts), 2 * BATCH)
        start = time.perf_counter()
        measure_importance(setup.model, texts, seed=setup.options.seed, limit=few)
        seconds += (time.perf_counter() - start) / few * min(len(texts), IMPORTANCE_TEXTS)
    length = min(MAX_LENGTH, max_length_of(setup.model))
    return seconds + _encoding(LiveEncoder(setup.model, length), _distilled(setup))


def _distilled(setup: TrainSetup) -> list[str]:
    """Return the general texts that the teacher encodes: no more than all steps together can use."""
    return (setup.distilled or [])[: setup.plan.steps * ROWS]


def _texts_per_piece(setup: TrainSetup) -> int:
    """Return how many texts fill a piece: only a full one shows how much memory scoring takes."""
    return max(TEXTS, math.ceil(BATCH_TOKENS / max(1.0, float(np.mean(setup.lengths)))))


def _encoding(encoder: LiveEncoder, texts: list[str], limit: int = TEXTS) -> float:
    """Return seconds to encode all ``texts``, measured on at most ``limit`` of them drawn evenly."""
    if not texts:
        return 0.0
    places = spread_rows(len(texts), limit)
    start = time.perf_counter()
    encoder.encode([texts[place] for place in places])
    return (time.perf_counter() - start) / len(places) * len(texts)


def _sample(train: Table, rows: int) -> Table:
    """Draw rows evenly; of labelled texts those of the most frequent labels, since a label needs two."""
    if len(train) <= rows:
        return train
    if train.shape is not Shape.LABELLED:
        return train.take(spread_rows(len(train), rows))
    labels = train.columns["label"]
    counts = Counter(labels)
    order = sorted(range(len(train)), key=lambda i: (-counts[labels[i]], labels[i]))
    return train.take(sorted(order[:rows]))


def _prefix_bytes(setup: TrainSetup, texts: int) -> int:
    """Return the size of the states below the lowest adapter, where they are kept (see `FrozenPrefix`)."""
    plain = setup.plan.recipe.objective in OF_TEXTS
    if plain or not (setup.trained.first_layer and supports(setup.model)):
        return 0
    tokens = int(np.minimum(setup.lengths, setup.plan.recipe.max_length).mean() * texts)
    return FrozenPrefix.size_of(setup.model, tokens, has_bf16(setup.model.device))


@contextmanager
def _peak_of_memory() -> Iterator[list[int]]:
    """Yield a list whose one entry is, at the end, the peak memory of this process in bytes."""
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss)
            if done.wait(0.005):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
