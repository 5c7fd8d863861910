"""What a training would take, measured on a few real steps and a few encoded texts."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Table
from scions.encoder.base_info import max_length_of
from scions.engine.batches import BATCH_TOKENS
from scions.engine.forward import supports
from scions.engine.precision import has_bf16
from scions.store import load_base
from scions.training.examples import OF_TEXTS, to_examples
from scions.training.fit import fit, sample_dev_rows
from scions.training.frozen_prefix import MOST_BYTES
from scions.training.live_encoder import LiveEncoder
from scions.training.prepare import TrainSetup, two_sided_recipe
from scions.training.preservation import measure_importance
from scions.training.preservation.distillation import MAX_LENGTH, ROWS
from scions.training.preservation.importance import BATCH
from scions.training.preservation.importance import TEXTS as IMPORTANCE_TEXTS
from scions.training.query_side import DocumentVectors
from scions.training.recipe import Recipe
from scions.training.trainable import TrainableParameters, make_trainable

STEPS = 6
TEXTS = 128
LINEAR_ROWS = 2000  # rows that the rival, a linear map, is trained on
DOMAIN_TEXTS = 1000  # texts that the manifest's statistics are drawn from
NO_TWO_SIDED = -1  # in the place of a rival's number of layers: there is no such rival


def estimate(
    prepared: TrainSetup,
    run: Path,
    seed: int,
    general: list[str],
    compare_full: bool,
    two_sided_layers: int | None = NO_TWO_SIDED,
) -> None:
    """Put time and memory into ``prepared.plan``; the model's weights are not to be used after.

    Time is seconds a step and seconds a text, measured here, times how many there are to come. Reading the data,
    drawing the intervals and fitting the linear map are left out: seconds, whatever the size. Memory is the peak of
    the process while measuring, and what a whole training is known to hold beyond that: the least it needs, since an
    allocator also keeps what it cannot fill again.

    Args:
        prepared: what `prepare` gave.
        run: a folder for what the measured steps write.
        seed: of the training.
        general: texts on which drift or a general set would be scored.
        compare_full: whether full fine-tuning is to be run beside it.
        two_sided_layers: ``layers`` of a two-sided adapter that is to be trained beside a query-side one.
    """
    plan, splits, index = prepared.plan, prepared.splits, prepared.index
    texts = to_examples(splits.train, plan.recipe.objective).texts
    with _peak_of_memory() as peak:
        step = _seconds_a_step(prepared.model, prepared.trained, plan.recipe, prepared, run, seed, index)
        fast = LiveEncoder(prepared.model, plan.recipe.max_length)
        exact = LiveEncoder(prepared.model, max_length_of(prepared.model), bf16=False)
        encode_train = _encoding(fast, texts)
        dev = sample_dev_rows(splits.dev, seed)
        scorings = 1 + math.ceil(plan.recipe.epochs)
        every = _encoding(fast, dev.texts())
        choosing = every * scorings
        whole = 1.0  # of the test texts: what the adapter, and not the base before it, has to encode
        if index is not None:  # documents are the base's, encoded once, at its own length
            own = LiveEncoder(index.base, max_length_of(index.base))
            queries = [row[0] for row in dev.row_texts()]
            choosing = _encoding(fast, queries) * scorings + _encoding(own, dev.texts()) * (index.file is None)
            whole = len(splits.test) / max(1, len(splits.test.texts()))
        few = min(len(splits.train), 1000) if splits.test.shape is Shape.LABELLED else 0
        piece = _texts_a_piece(prepared)
        judging = (
            _encoding(exact, splits.test.texts(), piece) + _encoding(exact, general) + _encoding(exact, texts[:few])
        )
        linear = encode_train * min(1.0, LINEAR_ROWS / len(splits.train)) + _encoding(fast, splits.dev.texts())
        linear += _encoding(fast, splits.test.texts(), piece)
        about = encode_train * min(1.0, DOMAIN_TEXTS / len(texts))
        once = encode_train if plan.recipe.objective == "contrastive" else 0.0
        preserving = _preserving(prepared, texts, seed)
        both = once + preserving
        if index is not None:
            once = _encoding(own, texts) * (index.file is None)
        plan.seconds = step * plan.steps + once + preserving
        plan.scoring_seconds = choosing + (1 + whole) * judging + linear + about
        rivals = []
        if compare_full:
            model = load_base(prepared.base_path)
            full = _seconds_a_step(
                model, make_trainable(model, "full"), prepared.plan.recipe, prepared, run / "full", seed
            )
            rivals.append(full * plan.steps + both + every * scorings + judging)
        if two_sided_layers != NO_TWO_SIDED:
            rivals.append(_two_sided(prepared, run / "two-sided", seed, two_sided_layers) + both + judging)
            rivals[-1] += every * scorings
        plan.baseline_seconds = sum(rivals) if rivals else None
    weights = sum(p.numel() * p.element_size() for p in prepared.model.parameters())
    models = 2  # beside the one that was measured: the bare base, and the adapter as it was published
    # Of training texts the base's, of general ones the teacher's; of what is scored the base's and the adapter's.
    scored = len(splits.test.texts()) + len(texts[:few]) + len(general)
    vectors = 4 * _width(prepared.model) * (len(texts) + len(_distilled(prepared)) + 2 * scored)
    plan.memory_bytes = peak[0] + models * weights + vectors + _prefix_bytes(prepared, len(texts))


def _two_sided(prepared: TrainSetup, run: Path, seed: int, layers: int | None) -> float:
    """Seconds of the steps of a two-sided adapter."""
    model, recipe, method = load_base(prepared.base_path), two_sided_recipe(prepared), prepared.plan.method
    trained = make_trainable(model, method, rank=None if method == "full" else prepared.plan.rank, layers=layers)
    steps = math.ceil(recipe.epochs * len(prepared.splits.train) / recipe.batch_size)
    return _seconds_a_step(model, trained, recipe, prepared, run, seed) * steps


def _seconds_a_step(
    model: SentenceTransformer,
    trained: TrainableParameters,
    recipe: Recipe,
    prepared: TrainSetup,
    run: Path,
    seed: int,
    index: DocumentVectors | None = None,
) -> float:
    """The median of a few real steps, without the first, which pays for what is done once."""
    recipe = Recipe(**{**recipe.to_dict(), "epochs": 1.0})
    sample = _sample(prepared.splits.train, STEPS * recipe.batch_size)
    moments = [time.perf_counter()]
    fitted = fit(
        model, trained, sample, None, recipe, run=run, seed=seed, general=prepared.general, index=index,
        on_step=lambda _: moments.append(time.perf_counter()),
    )  # fmt: skip
    apart = np.diff(moments[1:])
    return float(statistics.median(apart)) if len(apart) else fitted.seconds / max(1, fitted.steps)


def _preserving(prepared: TrainSetup, texts: list[str], seed: int) -> float:
    """Seconds of what preservation asks before the first step; what it adds to a step is measured with the step."""
    seconds, model = 0.0, prepared.model
    if not {"mask", "contrast"}.isdisjoint(prepared.plan.recipe.preserved):
        few = min(len(texts), 2 * BATCH)
        start = time.perf_counter()
        measure_importance(model, texts, seed=seed, most=few)
        seconds += (time.perf_counter() - start) / few * min(len(texts), IMPORTANCE_TEXTS)
    return seconds + _encoding(LiveEncoder(model, min(MAX_LENGTH, max_length_of(model))), _distilled(prepared))


def _distilled(prepared: TrainSetup) -> list[str]:
    """The general texts whose vectors the teacher gives: no more than all steps together can ask for."""
    return (prepared.general or [])[: prepared.plan.steps * ROWS]


def _texts_a_piece(prepared: TrainSetup) -> int:
    """How many texts make a whole piece: only such a one shows what scoring takes of memory."""
    return max(TEXTS, math.ceil(BATCH_TOKENS / max(1.0, float(np.mean(prepared.lengths)))))


def _encoding(encoder: LiveEncoder, texts: list[str], most: int = TEXTS) -> float:
    """Seconds to encode all ``texts``, from at most so many drawn evenly over them."""
    if not texts:
        return 0.0
    places = np.unique(np.linspace(0, len(texts) - 1, min(most, len(texts))).round().astype(int))
    start = time.perf_counter()
    encoder.encode([texts[place] for place in places])
    return (time.perf_counter() - start) / len(places) * len(texts)


def _sample(train: Table, rows: int) -> Table:
    """``rows`` rows drawn evenly; of labelled texts those of the most frequent labels, since a label needs two."""
    if len(train) <= rows:
        return train
    if train.shape is not Shape.LABELLED:
        return train.take(np.linspace(0, len(train) - 1, rows).round().astype(int).tolist())
    labels = train.columns["label"]
    counts = Counter(labels)
    order = sorted(range(len(train)), key=lambda i: (-counts[labels[i]], labels[i]))
    return train.take(sorted(order[:rows]))


def _width(model: SentenceTransformer) -> int:
    return int(model.get_embedding_dimension() or 0)


def _prefix_bytes(prepared: TrainSetup, texts: int) -> int:
    """What the states below the lowest adapter would take, where they are kept (see `FrozenPrefix`)."""
    plain = prepared.plan.recipe.objective in OF_TEXTS
    if plain or not (prepared.trained.first_layer and supports(prepared.model)):
        return 0
    tokens = np.minimum(prepared.lengths, prepared.plan.recipe.max_length).mean() * texts
    transformer: Any = prepared.model[0].auto_model
    size = int(tokens * transformer.config.hidden_size * (2 if has_bf16(prepared.model.device) else 4))
    return size if size <= MOST_BYTES else 0


@contextmanager
def _peak_of_memory() -> Iterator[list[int]]:
    """A list whose one entry is, at the end, the most memory in bytes that this process has held meanwhile."""
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
