"""Train tensors inside a base on a table of rows, with a recipe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

from scions.data import Table
from scions.engine.forward import packed_forward, supports
from scions.engine.precision import autocast, frozen_in_bf16, has_bf16, without_dropout
from scions.errors import Interrupted
from scions.training.batches import PlannedSteps, plan_batches
from scions.training.best_epoch import BestEpoch, dev_scorer
from scions.training.examples import OF_TEXTS, Examples, to_examples
from scions.training.frozen_prefix import FrozenPrefix
from scions.training.hard_negatives import mine_negatives
from scions.training.live_encoder import prompt_of
from scions.training.objectives.token_deletion import DeletionSteps
from scions.training.preservation import Importance, Preserver, measure_importance
from scions.training.preservation.distillation import ROWS
from scions.training.preservation.texts import general_texts
from scions.training.query_side import DocumentVectors, QuerySteps, query_tokens
from scions.training.recipe import Recipe
from scions.training.tokens import Tokens, encode_all
from scions.training.train_callback import Step, TrainCallback
from scions.training.trainable import TrainableParameters
from scions.training.trainer import AdapterTrainer


@dataclass
class FitResult:
    """A finished run of `fit`. ``seconds`` leaves out the scoring of development rows."""

    history: list[dict[str, Any]]
    steps: int
    rows: int
    seconds: float
    truncated: int
    texts: int

    @property
    def rows_per_second(self) -> float:
        """Training rows (pairs) per second."""
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
        resume_from: a checkpoint of the same training.
        on_step: called after every step.
        importance: of the base, for the parts of preservation that need it; None: measured on ``train``.
        general: texts for distillation; None: those named in the recipe.
        index: train queries alone, against these vectors of documents; None: train both sides.

    Raises:
        TrainingDiverged: a loss that is not finite.
        Interrupted: Ctrl-C; a checkpoint was saved.
    """
    bf16 = bf16 and has_bf16(model.device)
    examples = to_examples(train, recipe.objective, prompt_of(model, "query"), prompt_of(model, "document"))
    if importance is None and not {"mask", "contrast"}.isdisjoint(recipe.preserved):
        importance = measure_importance(model, examples.texts, seed=seed)
    packed = supports(model) and not recipe.dropout  # packed attention has no dropout
    with frozen_in_bf16(model, bf16), packed_forward(model, trained.first_layer) if packed else nullcontext():
        steps = _plan_steps(model, trained, examples, recipe, seed, packed, bf16, index)
        batches, tokens = steps.batches, steps.tokens
        if "distillation" in recipe.preserved:
            if general is None:
                general = general_texts(recipe.general_texts, model, train, seed)
            general = general[: len(batches) * ROWS]
        preserver = Preserver.of(model, trained, recipe, steps, importance, general, seed, bf16)
        score = dev_scorer(model, dev, recipe, bf16, seed, index) if dev is not None else None
        best_epoch = BestEpoch(trained.parameters, score)
        callback = TrainCallback(best_epoch, len(batches), recipe, on_step)
        trainer = AdapterTrainer(
            model, _arguments(recipe, run, seed, model), steps, trained, recipe, best_epoch, bf16, [callback], preserver
        )
        callback.trainer = trainer
        with without_dropout(model, not recipe.dropout), callback.stopped_by_ctrl_c():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if callback.stop:
        raise Interrupted(
            f"stopped at step {trainer.state.global_step} of {len(batches)}; a checkpoint is saved in {run}. "
            "Resume it with the same options and `resume=True`"
        )
    best_epoch.use_best()
    model.eval()
    rows = sum(len(batch.columns) for batch in batches[callback.first_step :])
    return FitResult(best_epoch.history, len(batches), rows, callback.elapsed(), tokens.truncated, len(tokens.ids))


def _plan_steps(
    model: SentenceTransformer,
    trained: TrainableParameters,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    packed: bool,
    bf16: bool,
    index: DocumentVectors | None,
) -> PlannedSteps:
    """Tokenize the texts, mine negatives and lay out all batches."""
    if index is None:
        tokens = Tokens(model, examples.texts, recipe.max_length)
        vectors: np.ndarray | None = None
        if recipe.objective == "contrastive" and examples.keys is None:  # to mask false negatives, and to mine
            model.eval()
            # A new adapter is nearly the identity, so before the first step the model is the base.
            with autocast(model.device, bf16):
                vectors = encode_all(model, tokens, packed)
            if recipe.hard_negatives and examples.columns.shape[1] == 2:
                examples = mine_negatives(examples, vectors, seed, recipe.hard_negatives)
    else:
        tokens = query_tokens(model, examples, recipe.max_length)
        vectors = index.of(examples, bf16)
    first, prefix = trained.first_layer, None
    total = int(tokens.lengths.sum())
    if packed and first and recipe.objective not in OF_TEXTS and FrozenPrefix.size_of(model, total, bf16):
        prefix = FrozenPrefix(model, tokens, first, bf16)
    batches = plan_batches(examples, recipe.batch_size, recipe.epochs, seed)
    kind: Callable[..., PlannedSteps] = PlannedSteps if index is None else QuerySteps
    if recipe.objective == "deletion":
        kind = partial(DeletionSteps, seed=seed, prompt=prompt_of(model, "document"))
    return kind(batches, tokens, examples, vectors, distinct=not recipe.dropout, packed=packed, prefix=prefix)


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
