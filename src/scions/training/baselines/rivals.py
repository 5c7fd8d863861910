"""Other ways to the same end, trained beside an adapter and scored on the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Shape
from scions.encoder.base_info import max_length_of
from scions.errors import Interrupted, ScionsError
from scions.evaluation import CachedEncoder, Evaluation, evaluate
from scions.store import disk_errors, load_base
from scions.training.baselines.linear_map import fit_linear_map
from scions.training.estimate import LINEAR_ROWS
from scions.training.fit import Step, fit
from scions.training.live_encoder import LiveEncoder
from scions.training.prepare import TrainSetup, two_sided_recipe
from scions.training.recipe import Recipe, default_rate
from scions.training.trainable import make_trainable

FULL, TWO_SIDED = "full fine-tuning", "two-sided adapter"
OnStep = Callable[[Step], None]


def score_baselines(
    base_model: SentenceTransformer,
    prepared: TrainSetup,
    run: Path,
    seed: int,
    layers: int | None,
    wanted: dict[str, bool],
    say: Callable[[str], None],
    on_step: OnStep | None,
) -> dict[str, Evaluation]:
    """Scores by rival: a linear map always, and what is ``wanted`` of the others.

    One that fails, or is stopped by Ctrl-C, is left out, and a note says so: the adapter is trained, and no rival may
    cost it.
    """
    linear = "linear map" if prepared.index is None else "linear map on both sides"
    ways: dict[str, Callable[[], Evaluation]] = {linear: lambda: _linear(base_model, prepared, seed)}
    if wanted.get(TWO_SIDED):
        ways[TWO_SIDED] = lambda: _two_sided(prepared, run / "two-sided", seed, layers, on_step)
    if wanted.get(FULL):
        ways[FULL] = lambda: _full(prepared, run / "full", seed, on_step)
    found: dict[str, Evaluation] = {}
    for rival, way in ways.items():
        say(f"training the rival: {rival}")
        try:
            found[rival] = way()
        except Exception as error:
            if not (isinstance(error, ScionsError) or disk_errors.is_full(error)):
                raise
            why = "stopped by Ctrl-C" if isinstance(error, Interrupted) else error
            prepared.plan.notes.append(f"the rival, {rival}, was left out: {why}")
            say(prepared.plan.notes[-1])
        for folder in ("two-sided", "full"):
            shutil.rmtree(run / folder, ignore_errors=True)
    return found


def exact_encoder(model: SentenceTransformer) -> CachedEncoder:
    # Published figures are in float32; packing changes nothing beyond 1e-6.
    return CachedEncoder(LiveEncoder(model, max_length_of(model), bf16=False))


def _linear(base_model: SentenceTransformer, prepared: TrainSetup, seed: int) -> Evaluation:
    train = prepared.splits.train
    if len(train) > LINEAR_ROWS:
        chosen = np.random.default_rng(seed).choice(len(train), LINEAR_ROWS, replace=False)
        train = train.take(np.sort(chosen).tolist())
    encoder = LiveEncoder(base_model, max_length_of(base_model))
    return evaluate(fit_linear_map(encoder, train, prepared.splits.dev, seed=seed), prepared.splits.test)


def _full(prepared: TrainSetup, run: Path, seed: int, on_step: Callable[[Step], None] | None) -> Evaluation:
    model = load_base(prepared.base_path)
    trained = make_trainable(model, "full")
    own = prepared.plan.recipe if prepared.index is None else two_sided_recipe(prepared)
    recipe = Recipe(**{**own.to_dict(), "learning_rate": default_rate("full", own.objective)})
    splits = prepared.splits
    fit(
        model, trained, splits.train, splits.dev, recipe,
        run=run, seed=seed, on_step=on_step, general=prepared.general,
    )  # fmt: skip
    few = splits.train if splits.test.shape is Shape.LABELLED else None
    return evaluate(exact_encoder(model), splits.test, few_shot=few)


def _two_sided(
    prepared: TrainSetup, run: Path, seed: int, layers: int | None, on_step: Callable[[Step], None] | None = None
) -> Evaluation:
    """Train the same method on both sides, with the recipe it would get, and score it on the test rows.

    Args:
        prepared: of the query-side training.
        run: folder for checkpoints.
        seed, layers: as there.
        on_step: called after every step.
    """
    model = load_base(prepared.base_path)
    method = prepared.plan.method
    trained = make_trainable(model, method, rank=None if method == "full" else prepared.plan.rank, layers=layers)
    splits, recipe = prepared.splits, two_sided_recipe(prepared)
    fit(
        model, trained, splits.train, splits.dev, recipe,
        run=run, seed=seed, on_step=on_step, general=prepared.general,
    )  # fmt: skip
    return evaluate(exact_encoder(model), splits.test)
