"""One training: a base, a table of rows and a recipe in; trained tensors out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from transformers import TrainerCallback

from scions.data import Shape, Table
from scions.encoder.query_side import QuerySideEncoder
from scions.engine.forward import packed_forward, supports
from scions.engine.precision import autocast, frozen_in_bf16, has_bf16, without_dropout
from scions.errors import Interrupted
from scions.evaluation import CachedEncoder, dev_score
from scions.training.batches import PlannedSteps, plan_batches
from scions.training.best_epoch import BestEpoch
from scions.training.examples import OF_TEXTS, Examples, to_examples
from scions.training.frozen_prefix import FrozenPrefix
from scions.training.hard_negatives import mine_negatives
from scions.training.live_encoder import LiveEncoder, prompt_of
from scions.training.objectives.token_deletion import DeletionSteps
from scions.training.preservation import Importance, Preserver, measure_importance
from scions.training.preservation.distillation import ROWS
from scions.training.preservation.texts import general_texts
from scions.training.query_side import DocumentVectors, QuerySteps, query_tokens
from scions.training.recipe import Recipe
from scions.training.tokens import Tokens, encode_all
from scions.training.trainable import TrainableParameters
from scions.training.trainer import AdapterTrainer, mark_complete

CHECKPOINT_SECONDS = 120.0


@dataclass(frozen=True)
class Step:
    """What a progress bar shows: ``rows_per_second`` over the training so far, ``seconds_left`` estimated."""

    step: int
    steps: int
    loss: float
    rows_per_second: float
    seconds_left: float


@dataclass
class FitResult:
    """A finished training. ``seconds`` leaves out the scoring of development rows."""

    history: list[dict[str, Any]]
    steps: int
    rows: int
    seconds: float
    truncated: int
    texts: int

    @property
    def rows_per_second(self) -> float:
        """Training rows (pairs) a second."""
        return self.rows / self.seconds if self.seconds else 0.0


def fit(
    model: SentenceTransformer,
    trained: TrainableParameters,
    train: Table,
    dev: Table | None,
    recipe: Recipe,
    *,
    run: Path,
    seed: int = 0,
    bf16: bool = True,
    keep_dropout: bool = False,
    resume_from: Path | None = None,
    on_step: Callable[[Step], None] | None = None,
    importance: Importance | None = None,
    general: list[str] | None = None,
    index: DocumentVectors | None = None,
) -> FitResult:
    """Train ``trained`` inside ``model`` and leave the best weights in it.

    Args:
        model: the base with what `make_trainable` put into it.
        trained: what `make_trainable` returned.
        train: training rows.
        dev: rows that choose the epoch; None keeps the last weights.
        recipe: settings.
        run: folder for checkpoints.
        seed: order of rows, dropout, mined negatives.
        bf16: use bf16 where the device has instructions for it.
        keep_dropout: leave the base's dropout on (it always is for the objective ``simcse``).
        resume_from: a checkpoint of this very training.
        on_step: called after every step.
        importance: of the base, for the parts of preservation that need it; None: measured on ``train``.
        general: texts for distillation; None: those that the recipe names.
        index: train queries alone, against these vectors of documents; None: both sides.

    Raises:
        TrainingDiverged: a loss that is not finite.
        Interrupted: Ctrl-C; a checkpoint was saved.
    """
    bf16 = bf16 and has_bf16(model.device)
    examples = to_examples(train, recipe.objective, prompt_of(model, "query"), prompt_of(model, "document"))
    if importance is None and not {"mask", "contrast"}.isdisjoint(recipe.preserved):
        importance = measure_importance(model, examples.texts, seed=seed)
    # Packed attention knows no dropout.
    packed = supports(model) and not (recipe.dropout or keep_dropout)
    if index is None:
        tokens = Tokens(model, examples.texts, recipe.max_length)
    else:
        tokens = query_tokens(model, examples, recipe.max_length)
    with frozen_in_bf16(model, bf16), packed_forward(model, trained.first_layer) if packed else nullcontext():
        if index is None:
            vectors = _base_vectors(model, examples, tokens, recipe, bf16, packed)
        else:
            vectors = index.of(examples, bf16)
        if index is None and recipe.hard_negatives and vectors is not None and examples.columns.shape[1] == 2:
            examples = mine_negatives(examples, vectors, seed, recipe.hard_negatives)
        prefix = None
        if (
            packed
            and trained.first_layer
            and recipe.objective not in OF_TEXTS
            and FrozenPrefix.fits(model, tokens, bf16)
        ):
            prefix = FrozenPrefix(model, tokens, trained.first_layer, bf16)
        batches = plan_batches(examples, recipe.batch_size, recipe.epochs, seed)
        kind: Callable[..., PlannedSteps] = PlannedSteps if index is None else QuerySteps
        if recipe.objective == "deletion":
            kind = partial(DeletionSteps, seed=seed, prompt=prompt_of(model, "document"))
        steps = kind(batches, tokens, examples, vectors, distinct=not recipe.dropout, packed=packed, prefix=prefix)
        if "distillation" in recipe.preserved:
            given = general_texts(recipe.general_texts, model, train, seed) if general is None else general
            general = given[: len(batches) * ROWS]
        preserver = Preserver.of(
            model,
            trained,
            recipe,
            importance=importance,
            general=general,
            batches=batches,
            tokens=tokens,
            seed=seed,
            packed=packed,
            bf16=bf16,
        )
        score = _dev_score(model, dev, recipe, bf16, seed, index) if dev is not None else None
        selection = BestEpoch(trained.parameters, score)
        rhythm = _TrainCallback(selection, len(batches), recipe, on_step)
        trainer = AdapterTrainer(
            model, _arguments(recipe, run, seed, model), steps, trained, recipe, selection, bf16, [rhythm], preserver
        )
        rhythm.trainer = trainer
        with without_dropout(model, not (recipe.dropout or keep_dropout)), rhythm.stopped_by_ctrl_c():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if rhythm.stop:
        raise Interrupted(
            f"stopped at step {trainer.state.global_step} of {len(batches)}; a checkpoint is saved in {run}. "
            "Go on with the same command and --resume"
        )
    selection.use_best()
    model.eval()
    rows = sum(len(batch.columns) for batch in batches[rhythm.first_step :])
    return FitResult(selection.history, len(batches), rows, rhythm.elapsed(), tokens.truncated, len(tokens.ids))


def _base_vectors(
    model: SentenceTransformer, examples: Examples, tokens: Tokens, recipe: Recipe, bf16: bool, packed: bool
) -> np.ndarray | None:
    """The frozen base's vectors of all texts, where false negatives are to be masked or negatives mined."""
    if recipe.objective != "contrastive" or examples.keys is not None:
        return None
    model.eval()
    # An adapter starts nearly as the identity, so before the first step the model is the base.
    with autocast(model.device, bf16):
        return encode_all(model, tokens, packed)


def _dev_score(
    model: SentenceTransformer, dev: Table, recipe: Recipe, bf16: bool, seed: int, index: DocumentVectors | None
) -> Callable[[], float]:
    rows = sample_dev_rows(dev, seed)
    encoder: Any = LiveEncoder(model, recipe.max_length, bf16)
    if index is not None:  # documents do not change: they are encoded for the first epoch alone
        encoder = QuerySideEncoder(encoder, CachedEncoder(index.encoder(bf16)))

    def score() -> float:
        return dev_score(encoder, rows, seed=seed)

    return score


def sample_dev_rows(dev: Table, seed: int, rows: int = 1000, documents: int = 1500) -> Table:
    """Few enough rows to score after every epoch; a retrieval corpus keeps all that is relevant, and distractors."""
    rng = np.random.default_rng(seed)
    if dev.shape is Shape.RETRIEVAL:
        rows = min(rows, 300)
    if len(dev) > rows:
        dev = dev.take(np.sort(rng.choice(len(dev), rows, replace=False)).tolist())
    if dev.shape is Shape.RETRIEVAL and dev.corpus is not None and len(dev.corpus) > documents:
        needed = {name for judged in dev.columns["relevant"] for name in judged}
        others = [name for name in dev.corpus if name not in needed]
        extra = rng.choice(len(others), max(0, min(len(others), documents - len(needed))), replace=False)
        keep = needed | {others[i] for i in extra}
        corpus = {name: text for name, text in dev.corpus.items() if name in keep}
        dev = Table(dev.shape, dev.columns, dev.source, corpus, dev.group, dev.notes)
    return dev


def _arguments(recipe: Recipe, run: Path, seed: int, model: SentenceTransformer) -> Any:
    return SentenceTransformerTrainingArguments(
        output_dir=str(run),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        seed=seed,
        use_cpu=model.device.type == "cpu",
        save_strategy="steps",
        save_steps=10**9,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


class _TrainCallback(TrainerCallback):
    """What happens between steps: progress, scoring after an epoch, checkpoints, Ctrl-C."""

    def __init__(
        self, selection: BestEpoch, steps: int, recipe: Recipe, on_step: Callable[[Step], None] | None
    ) -> None:
        self.selection, self.steps, self.recipe, self.on_step = selection, steps, recipe, on_step
        self.steps_per_epoch = max(1, round(steps / recipe.epochs))
        self.trainer: AdapterTrainer | None = None
        self.stop = False
        self.first_step = 0
        self._start = self._last_save = self._end = 0.0

    def elapsed(self) -> float:
        """Seconds of training, without scoring."""
        return (self._end or time.perf_counter()) - self._start - self.selection.seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.selection.history:
            self.selection.check(0)
        self.selection.seconds = 0.0
        self.first_step = state.global_step
        self._start = self._last_save = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, now = state.global_step, time.perf_counter()
        if step >= self.steps:
            self._end = now
        if step % self.steps_per_epoch == 0 or step == self.steps:
            scored = self.selection.seconds
            self.selection.check(step)
            if self._end:
                self.selection.seconds = scored
        if self.stop or now - self._last_save > CHECKPOINT_SECONDS:
            control.should_save = True
            self._last_save = now
        if self.stop:
            control.should_training_stop = True
        if self.on_step is not None and self.trainer is not None:
            elapsed = self.elapsed()
            done = step - self.first_step
            rows = done * self.recipe.batch_size
            left = elapsed / done * (self.steps - step)
            self.on_step(Step(step, self.steps, self.trainer.last_loss, rows / max(elapsed, 1e-9), left))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    @contextmanager
    def stopped_by_ctrl_c(self) -> Iterator[None]:
        """The first Ctrl-C ends the training at the next step, with a checkpoint; the second ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def handle(signum: int, frame: Any) -> None:
            if self.stop:
                raise KeyboardInterrupt
            self.stop = True

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
