"""Train an adapter from a user's file, judge it and publish it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scions.deprecation import renamed_arguments
from scions.errors import ScionsError
from scions.evaluation.example_queries import ExampleQuery, example_queries
from scions.evaluation.verdict import Verdict
from scions.publishing.adapter_files import reload, write_description, write_weights
from scions.publishing.card import adapter_card
from scions.store import Manifest, disk_errors, write_folder
from scions.store.atomic import check_replaceable
from scions.training.baselines.score import score_baselines
from scions.training.checkpoints import checkpoint_settings, clean_up_on_error, find_checkpoint, start_run_folder
from scions.training.estimate import estimate
from scions.training.fit import FitResult, fit
from scions.training.manifest import build_manifest
from scions.training.options import TrainKeywords, TrainOptions
from scions.training.prepare import Plan, prepare
from scions.training.scoring import draw_verdict, score_adapter, score_base
from scions.training.train_callback import Step

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass
class TrainResult:
    """A finished training. ``path`` is None where an adapter that is worse than the base was not published."""

    name: str
    path: Path | None
    verdict: Verdict
    manifest: Manifest
    fitted: FitResult
    notes: list[str]
    examples: list[ExampleQuery] = field(default_factory=list)


@renamed_arguments(output="adapters")
def train(
    data: str | Path,
    name: str,
    *,
    on_stage: Callable[[str], None] | None = None,
    on_recipe: Callable[[Plan], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    **options: Unpack[TrainKeywords],
) -> TrainResult:
    """Train one adapter, judge it on held-out rows, and publish it unless it is worse than the base.

    Args:
        data: a file, a folder (with train/dev/test files, or in BEIR's layout) or ``docstrings``.
        name: name of the adapter; its folder is ``adapters/name``.
        base (str): the frozen model. Default: all-MiniLM-L6-v2.
        method (str): houlsby, pfeiffer, parallel, lora or full. Default: houlsby.
        trainable_share (float): share of the base's parameters to train (default 0.036), or give ``rank``.
        rank (int): width of the bottleneck.
        layers (int): adapt only the upper ``layers`` layers.
        objective, batch_size, learning_rate, epochs, max_length: instead of the recipe's.
        seed (int): seed of row order, splits and dropout; an adapter's first weights do not depend on it.
        general (str | Path): rows of general text, to measure what the adapter costs there.
        dev, test (str | Path): files for these parts; otherwise they are split off ``data`` by group.
        shape (str), columns (dict): needed where the shape of the data is ambiguous.
        limit (int): train on at most this many rows.
        adapters (str | Path): the folder of adapters. Default: ``adapters``, or what SCIONS_ADAPTERS says.
        resume (bool): resume from the last checkpoint.
        force (bool): replace an adapter of that name, and publish even one that is worse.
        compare_full (bool): train all parameters as well, as a baseline in the verdict.
        query_side (bool): train queries alone: documents keep the base's vectors, so an existing index stays valid.
        documents (str | Path): a file of the base's vectors, with its record, for the corpus of a BEIR folder, in its
            order.
        document_texts (str | Path): the texts of ``documents``, where the data is not a BEIR folder.
        compare_two_sided (bool): train both sides as well, to measure what embedding every document anew would gain.
        preserve (str): how general knowledge is kept: ``distillation``, ``mask``, ``contrast``, several joined by
            commas, ``all`` or ``none``. Default: the recipe's.
        general_texts (str | Path): the texts for distillation: a file, or ``docstrings``, ``words``, ``own``.
        max_general_loss (float): refuse an adapter that loses more points of the metric of ``general``, else of drift.
        on_stage, on_recipe, on_step: called with each stage, with the plan, and after every training step.

    Raises:
        ScionsError: bad data, name, options or base; a training that diverges or is interrupted. Nothing incomplete
            is left where adapters are looked for.
    """
    chosen = TrainOptions.of(data, name, options)
    say = on_stage or (lambda text: None)
    check_replaceable(chosen.folder, chosen.force)
    disk_errors.check_writable(chosen.root)
    say("reading the data and loading the base")
    setup = prepare(chosen)
    if on_recipe is not None:
        on_recipe(setup.plan)
    run, settings = chosen.run_folder, checkpoint_settings(setup)
    checkpoint = find_checkpoint(run, settings, chosen.resume, chosen.force)
    if chosen.resume and checkpoint is None:
        say(f"nothing to resume for {name}: starting from the beginning")
    say("scoring the base on held-out rows")
    base = score_base(setup)
    with clean_up_on_error(run, setup.plan.trainable_parameters):
        if checkpoint is None:
            start_run_folder(run, settings)
        say("training" if checkpoint is None else f"training, from {checkpoint.name}")
        fitted = fit(
            setup.model,
            setup.trained,
            setup.splits.train,
            setup.splits.dev,
            setup.plan.recipe,
            run=run,
            seed=chosen.seed,
            resume_from=checkpoint,
            on_step=on_step,
            general=setup.distilled,
            index=setup.index,
        )
        say("scoring the adapter on held-out rows")
        candidate = run / "candidate"
        write_weights(setup.model, chosen.method, setup.plan.base, candidate)
        # Reloaded: what is judged is what will be published.
        adapter = score_adapter(setup, reload(candidate, chosen.method, setup.base_path, name), base)
        baselines = score_baselines(setup, base.model, say, on_step)
        if chosen.query_side:
            say("measuring what embedding every document anew would cost")
        verdict = draw_verdict(setup, base, adapter, baselines)
        manifest = build_manifest(setup, fitted, verdict, base.model, candidate)
        examples = example_queries(setup.splits.test, base.encoder, adapter.encoder)
        path = None
        if not verdict.refused or chosen.force:
            say("publishing")
            path = write_folder(
                chosen.folder, lambda staging: _write(staging, candidate, manifest, verdict), force=chosen.force
            )
        shutil.rmtree(run, ignore_errors=True)
        return TrainResult(name, path, verdict, manifest, fitted, setup.plan.notes, examples)


@renamed_arguments(output="adapters")
def plan(data: str | Path, *, name: str | None = None, **options: Unpack[TrainKeywords]) -> Plan:
    """Return what ``train(data, name, **options)`` would do, with estimated time and memory.

    Writes nothing that stays. What would keep the training from starting, such as a name that is taken, is in the
    notes.

    Raises:
        ScionsError: as `train`, for data, names, options or base.
    """
    chosen = TrainOptions.of(data, name, options)
    setup = prepare(chosen)
    notes = setup.plan.notes
    if name is not None:
        with _noted(notes):
            disk_errors.check_writable(chosen.root)
        with _noted(notes):
            check_replaceable(chosen.folder, chosen.force)
        with _noted(notes):
            find_checkpoint(chosen.run_folder, checkpoint_settings(setup), chosen.resume, chosen.force)
    with tempfile.TemporaryDirectory() as folder:
        estimate(setup, Path(folder))
    return setup.plan


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    try:
        yield
    except ScionsError as error:
        notes.append(f"the training would not start: {error}")


def _write(staging: Path, candidate: Path, manifest: Manifest, verdict: Verdict) -> None:
    shutil.copytree(candidate, staging, dirs_exist_ok=True)
    write_description(staging, manifest, adapter_card(manifest, verdict), verdict)
