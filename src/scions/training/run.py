"""From a user's file to a published adapter with a verdict."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scions.data import Shape, drift_pairs, read
from scions.encoder.query_side import QuerySideEncoder
from scions.errors import DataError, ScionsError, UsageError
from scions.evaluation import CachedEncoder, Evaluation, drift_of, evaluate
from scions.evaluation.example_queries import ExampleQuery, example_queries
from scions.evaluation.reindex_cost import reindexing_of
from scions.evaluation.verdict import Verdict, check_loss, judge
from scions.publishing.adapter_files import reload, write_description, write_weights
from scions.publishing.card import adapter_card
from scions.store import (
    Manifest,
    check_name,
    default_root,
    disk_errors,
    load_base,
    write_folder,
)
from scions.store.atomic import check_replaceable
from scions.training.baselines.rivals import FULL, TWO_SIDED, exact_encoder, score_baselines
from scions.training.checkpoints import checkpoint_settings, clean_up_on_error, find_checkpoint, start_run_folder
from scions.training.estimate import NO_TWO_SIDED, estimate
from scions.training.fit import FitResult, Step, fit
from scions.training.manifest import build_manifest
from scions.training.prepare import OPTIONS, Plan, TrainSetup, parse_overrides, prepare
from scions.training.query_side import documents_of
from scions.training.trainer import TrainingDiverged

Stage = Callable[[str], None]
# Of a checkpoint: a trained value takes itself, its best so far and two moments of the optimiser, in float32.
BYTES_A_VALUE, BYTES_BESIDE = 16, 100_000


@dataclass
class TrainResult:
    """A training and what it came to. ``path`` is None where a worse adapter was not published."""

    name: str
    path: Path | None
    verdict: Verdict
    manifest: Manifest
    fitted: FitResult
    notes: list[str]
    examples: list[ExampleQuery] = field(default_factory=list)


def plan(data: str, *, name: str | None = None, **options: Any) -> Plan:
    """What ``train(data, name, **options)`` would do, with estimated time and memory. Writes nothing that stays.

    What would keep it from beginning, such as a name that is taken, stands in the notes.

    Raises:
        ScionsError: as `train`, for data, names, options or base.
    """
    if name is not None:
        check_name(name)
    output, resume, force = options.pop("output", None), options.pop("resume", False), options.pop("force", False)
    compare_full, given = options.pop("compare_full", False), options.pop("general", None)
    compare_two_sided = options.pop("compare_two_sided", False)
    check_loss(options.pop("max_general_loss", None), lambda: given is not None or _drift_texts())
    _check_two_sided(options.get("query_side", False), compare_two_sided)
    seed, layers = options.get("seed", 0), options.get("layers")
    general = None if given is None else read(str(given))
    prepared = _prepare(data, **options)
    if general is not None:
        prepared.plan.notes += [f"general: {note}" for note in general.notes]
    if name is not None:
        root = _root(output)
        with _noted(prepared.plan.notes):
            disk_errors.check_writable(root)
        with _noted(prepared.plan.notes):
            check_replaceable(root / name, force)
        with _noted(prepared.plan.notes):
            find_checkpoint(root / f".training-{name}", checkpoint_settings(prepared, seed, layers), resume, force)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        texts = _drift_texts() if general is None else general.texts()
        full = compare_full and prepared.plan.method != "full"
        estimate(prepared, Path(folder), seed, texts, full, layers if compare_two_sided else NO_TWO_SIDED)
    return prepared.plan


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    try:
        yield
    except ScionsError as error:
        notes.append(f"the training would not begin: {error}")


def _drift_texts() -> list[str]:
    with suppress(OSError, ScionsError):
        return list(dict.fromkeys(text for pair in drift_pairs() for text in pair))
    return []


def _root(output: str | Path | None) -> Path:
    return Path(output) if output is not None else default_root()


def train(
    data: str | Path,
    name: str,
    *,
    base: str | None = None,
    method: str = "houlsby",
    trainable_share: float | None = None,
    rank: int | None = None,
    layers: int | None = None,
    objective: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    epochs: float | None = None,
    max_length: int | None = None,
    seed: int = 0,
    general: str | Path | None = None,
    dev: str | Path | None = None,
    test: str | Path | None = None,
    shape: str | None = None,
    columns: dict[str, str] | None = None,
    limit: int | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    compare_full: bool = False,
    query_side: bool = False,
    documents: str | Path | None = None,
    document_texts: str | Path | None = None,
    compare_two_sided: bool = False,
    preserve: str | None = None,
    general_texts: str | Path | None = None,
    max_general_loss: float | None = None,
    on_stage: Stage | None = None,
    on_recipe: Callable[[Plan], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> TrainResult:
    """Train one adapter, judge it on held-out rows, and publish it unless it is worse than the base.

    Args:
        data: a file, a folder (with train/dev/test files, or in BEIR's layout) or ``docstrings``.
        name: of the adapter; its folder is ``output/name``.
        base: the frozen model; None: all-MiniLM-L6-v2.
        method: houlsby, pfeiffer, parallel, lora or full.
        trainable_share: share of the base's parameters to train (default 0.036), or give ``rank``.
        layers: adapt only the upper ``layers`` layers.
        objective, batch_size, learning_rate, epochs, max_length: instead of the recipe's.
        seed: order of rows, splits, dropout; an adapter's first weights do not depend on it.
        general: rows of general text, to see what general knowledge the adapter costs.
        dev, test: files for these parts; otherwise they are split off ``data`` by group.
        shape, columns: settle what reading finds ambiguous.
        limit: at most so many training rows.
        output: where adapters lie; None: ``adapters`` or what SCIONS_ADAPTERS says.
        resume: go on from the last checkpoint.
        force: replace an adapter of that name, and publish even what is worse.
        compare_full: train all parameters as well, as a rival in the verdict.
        query_side: train queries alone: documents keep the base's vectors, so an index of the base's serves on.
        documents: a file of vectors of the base's, with its record, for the corpus of a BEIR folder, in its order.
        document_texts: the texts of ``documents``, where the data is no BEIR folder.
        compare_two_sided: train both sides as well, to see what embedding every document anew would gain.
        preserve: how general knowledge is kept: ``distillation``, ``mask``, ``contrast``, several joined by commas,
            ``all`` or ``none``; None: the recipe's.
        general_texts: the texts that distillation holds on to: a file, or ``docstrings``, ``words``, ``own``.
        max_general_loss: refuse an adapter that loses more, in points of the metric of ``general``, else of drift.
        on_stage, on_recipe, on_step: told what happens.

    Raises:
        ScionsError: bad data, name, options or base; a training that diverges or is interrupted. Nothing half-written
            is left where adapters are looked for.
    """
    check_name(name)
    _check_two_sided(query_side, compare_two_sided)
    check_loss(max_general_loss, lambda: general is not None or _drift_texts())
    root = _root(output)
    folder, run = root / name, root / f".training-{name}"
    check_replaceable(folder, force)
    disk_errors.check_writable(root)
    say = on_stage or (lambda text: None)
    overrides = parse_overrides(
        {
            "objective": objective,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "max_length": max_length,
            "preserve": preserve,
            "general_texts": general_texts,
        }
    )
    say("reading the data and loading the base")
    # Whatever may be wrong with a file shows before the training, not after it.
    general_rows = None if general is None else read(str(general))
    prepared = prepare(
        str(data),
        base=base,
        method=method,
        trainable_share=trainable_share,
        rank=rank,
        layers=layers,
        seed=seed,
        dev=_text(dev),
        test=_text(test),
        shape=shape,
        columns=columns,
        limit=limit,
        overrides=overrides,
        query_side=query_side,
        documents=_text(documents),
        document_texts=_text(document_texts),
    )
    index = prepared.index
    if general_rows is not None:
        prepared.plan.notes += [f"general: {note}" for note in general_rows.notes]
    if on_recipe is not None:
        on_recipe(prepared.plan)
    settings = checkpoint_settings(prepared, seed, layers)
    checkpoint = find_checkpoint(run, settings, resume, force)
    if resume and checkpoint is None:
        say(f"nothing to resume for {name}: starting from the beginning")
    # The base is scored first: test rows that cannot be scored show before the training, not after it.
    say("scoring the base on held-out rows")
    base_model = load_base(prepared.base_path) if index is None else index.base
    before = exact_encoder(base_model) if index is None else CachedEncoder(index.encoder())
    few = prepared.splits.train if prepared.splits.test.shape is Shape.LABELLED else None
    base_scores = evaluate(before, prepared.splits.test, few_shot=few)
    base_general = None if general_rows is None else evaluate(before, general_rows)
    with clean_up_on_error(run, BYTES_A_VALUE * prepared.plan.trainable_parameters + BYTES_BESIDE):
        if checkpoint is None:
            start_run_folder(run, settings)
        say("training" if checkpoint is None else f"training, from {checkpoint.name}")
        fitted = _fit(prepared, run, seed, checkpoint, on_step)
        say("scoring the adapter on held-out rows")
        candidate = run / "candidate"
        write_weights(prepared.model, method, prepared.plan.base, candidate)
        adapted = reload(candidate, method, prepared.base_path, name)
        after = exact_encoder(adapted)
        if index is not None:
            after = CachedEncoder(QuerySideEncoder(after, before))
        scores = evaluate(after, prepared.splits.test, few_shot=few)
        general_scores, drifted = None, None
        if general_rows is not None and base_general is not None:
            general_scores = base_general, evaluate(after, general_rows)
        else:
            drifted = _drift(before, after)
        if _collapsed((base_scores, scores), general_scores, drifted):
            raise TrainingDiverged(
                "training diverged: the adapter gives all texts the same vector. Nothing was published. "
                f"Try a lower --learning-rate (now {prepared.plan.recipe.learning_rate:g})"
            )
        wanted = {TWO_SIDED: compare_two_sided, FULL: compare_full and method != "full"}
        baselines = score_baselines(base_model, prepared, run, seed, layers, wanted, say, on_step)
        verdict = judge(
            base_scores,
            scores,
            general=general_scores,
            drift=drifted,
            baselines=baselines,
            max_general_loss=max_general_loss,
        )
        if index is not None:
            say("measuring what embedding every document anew would cost")
            texts = list(index.texts) or documents_of(prepared.splits)
            both = baselines.get(TWO_SIDED)
            cost = reindexing_of(adapted, texts, index.documents, base_scores, verdict.difference, both)
            verdict = replace(verdict, reindexing=cost)
        manifest = build_manifest(name, prepared, fitted, verdict, base_model, candidate, seed, layers)
        examples = example_queries(prepared.splits.test, before, after)
        path = None
        if not verdict.refused or force:
            say("publishing")
            path = write_folder(folder, lambda staging: _write(staging, candidate, manifest, verdict), force=force)
        shutil.rmtree(run, ignore_errors=True)
        return TrainResult(name, path, verdict, manifest, fitted, prepared.plan.notes, examples)


def _prepare(data: str, **options: Any) -> TrainSetup:
    overrides = parse_overrides({name: options.pop(name, None) for name in OPTIONS})
    defaults: dict[str, Any] = dict.fromkeys(
        (
            "base",
            "trainable_share",
            "rank",
            "layers",
            "dev",
            "test",
            "shape",
            "columns",
            "limit",
            "documents",
            "document_texts",
        )
    )
    return prepare(str(data), **{**defaults, "method": "houlsby", "seed": 0, **options}, overrides=overrides)


def _check_two_sided(query_side: bool, compare_two_sided: bool) -> None:
    if compare_two_sided and not query_side:
        raise UsageError("--compare-two-sided is a rival of --query-side: give that too (without it both sides train)")


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _fit(
    prepared: TrainSetup, run: Path, seed: int, checkpoint: Path | None, on_step: Callable[[Step], None] | None
) -> FitResult:
    splits = prepared.splits
    return fit(
        prepared.model,
        prepared.trained,
        splits.train,
        splits.dev,
        prepared.plan.recipe,
        run=run,
        seed=seed,
        resume_from=checkpoint,
        on_step=on_step,
        general=prepared.general,
        index=prepared.index,
    )


def _drift(before: CachedEncoder, after: CachedEncoder) -> float | None:
    with suppress(OSError, DataError):
        return drift_of(before, after, drift_pairs())
    return None


def _collapsed(
    domain: tuple[Evaluation, Evaluation], general: tuple[Evaluation, Evaluation] | None, drift: float | None
) -> bool:
    """Whether a figure of the adapter's is undefined where the base's is not: no two of its similarities differ."""
    pairs = [domain] if general is None else [domain, general]
    figures = [(was.scores[was.primary], now.scores[now.primary]) for was, now in pairs]
    if drift is not None:
        figures.append((100.0, drift))
    return any(math.isfinite(was) and not math.isfinite(now) for was, now in figures)


def _write(staging: Path, candidate: Path, manifest: Manifest, verdict: Verdict) -> None:
    shutil.copytree(candidate, staging, dirs_exist_ok=True)
    write_description(staging, manifest, adapter_card(manifest, verdict), verdict)
