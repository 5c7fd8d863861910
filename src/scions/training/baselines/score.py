"""Train the baselines of an adapter and score them on the same held-out rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.errors import Interrupted, ScionsError
from scions.evaluation import Evaluation, evaluate
from scions.store import disk_errors
from scions.training.baselines.linear_map import LINEAR_ROWS, fit_linear_map
from scions.training.baselines.trained import FULL, TWO_SIDED, full_fine_tuning, two_sided_adapter
from scions.training.fit import fit
from scions.training.live_encoder import LiveEncoder, exact_encoder
from scions.training.prepare import TrainSetup
from scions.training.recipe import Recipe
from scions.training.train_callback import Step
from scions.training.trainable import TrainableParameters

OnStep = Callable[[Step], None]


def score_baselines(
    setup: TrainSetup, base: SentenceTransformer, say: Callable[[str], None], on_step: OnStep | None
) -> dict[str, Evaluation]:
    """Return scores by baseline: a linear map always, the others where the options name them.

    One that fails, or is stopped by Ctrl-C, is left out, and a note says so: the adapter is trained, and no baseline
    may cost it.

    Args:
        setup: of the adapter.
        base: the bare base.
        say: called with each stage.
        on_step: called after every step of a baseline that is trained.
    """
    linear = "linear map" if setup.index is None else "linear map on both sides"
    ways: dict[str, Callable[[], Evaluation]] = {linear: lambda: _linear_map(setup, base)}
    run = setup.options.run_folder
    if setup.options.compare_two_sided:
        ways[TWO_SIDED] = lambda: _trained(setup, *two_sided_adapter(setup), run / "two-sided", on_step)
    if setup.options.trains_full_baseline:
        ways[FULL] = lambda: _trained(setup, *full_fine_tuning(setup), run / "full", on_step)
    scores: dict[str, Evaluation] = {}
    for baseline, score in ways.items():
        say(f"training the baseline: {baseline}")
        try:
            scores[baseline] = score()
        except Exception as error:
            if not (isinstance(error, ScionsError) or disk_errors.is_full(error)):
                raise
            why = "stopped by Ctrl-C" if isinstance(error, Interrupted) else error
            setup.plan.notes.append(f"the baseline, {baseline}, was left out: {why}")
            say(setup.plan.notes[-1])
        for folder in ("two-sided", "full"):
            shutil.rmtree(run / folder, ignore_errors=True)
    return scores


def _linear_map(setup: TrainSetup, base: SentenceTransformer) -> Evaluation:
    train, seed = setup.splits.train, setup.options.seed
    if len(train) > LINEAR_ROWS:
        chosen = np.random.default_rng(seed).choice(len(train), LINEAR_ROWS, replace=False)
        train = train.take(np.sort(chosen).tolist())
    return evaluate(fit_linear_map(LiveEncoder(base), train, setup.splits.dev, seed=seed), setup.splits.test)


def _trained(
    setup: TrainSetup,
    model: SentenceTransformer,
    trained: TrainableParameters,
    recipe: Recipe,
    run: Path,
    on_step: OnStep | None,
) -> Evaluation:
    train, dev, seed = setup.splits.train, setup.splits.dev, setup.options.seed
    fit(model, trained, train, dev, recipe, run=run, seed=seed, on_step=on_step, general=setup.distilled)
    return evaluate(exact_encoder(model), setup.splits.test)
