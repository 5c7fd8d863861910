"""From a user's file to a published adapter with a verdict."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Table, drift_pairs, fingerprint, read
from scions.errors import ScionsError, UsageError
from scions.evaluation import Evaluation, Remembering, drift_of, evaluate, fit_linear_map
from scions.store import Manifest, base_fingerprint, check_name, default_root, load_base, publish, write_file
from scions.store.publish import refuse_existing
from scions.training.candidate import reload, write_weights
from scions.training.card import PLOT, card, draw
from scions.training.fast_encoder import FastEncoder
from scions.training.fit import Fitted, Step, fit
from scions.training.methods import graft
from scions.training.plan import Plan, Prepared, estimate, parse_overrides, prepare
from scions.training.record import manifest_of
from scions.training.shown import Shown, shown_queries
from scions.training.trainer import TrainingDiverged, newest_checkpoint
from scions.training.verdict import WORSE, Verdict, judge

Stage = Callable[[str], None]
LINEAR_ROWS = 2000
SETTINGS = "settings.json"


@dataclass
class Result:
    """A training and what it came to. ``path`` is None where a worse adapter was not published."""

    name: str
    path: Path | None
    verdict: Verdict
    manifest: Manifest
    fitted: Fitted
    notes: list[str]
    examples: list[Shown] = field(default_factory=list)


def plan(data: str, **options: Any) -> Plan:
    """What ``train(data, name, **options)`` would do, with estimated time and memory. Writes nothing that stays."""
    for name in ("general", "output", "resume", "force", "compare_full", "name"):
        options.pop(name, None)
    prepared = _prepare(data, **options)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        estimate(prepared, Path(folder), options.get("seed", 0))
    return prepared.plan


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
    on_stage: Stage | None = None,
    on_recipe: Callable[[Plan], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Result:
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
        on_stage, on_recipe, on_step: told what happens.

    Raises:
        ScionsError: bad data, name, options or base; a training that diverges or is interrupted. Nothing half-written
            is left where adapters are looked for.
    """
    check_name(name)
    root = Path(output) if output is not None else default_root()
    folder, run = root / name, root / f".training-{name}"
    refuse_existing(folder, force)
    say = on_stage or (lambda text: None)
    overrides = parse_overrides(
        {
            "objective": objective,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "max_length": max_length,
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
    )
    if on_recipe is not None:
        on_recipe(prepared.plan)
    settings = _settings(prepared, seed, layers)
    checkpoint = _find_checkpoint(run, settings, resume, force)
    if resume and checkpoint is None:
        say(f"nothing to resume for {name}: starting from the beginning")
    # The base is scored first: test rows that cannot be scored show before the training, not after it.
    say("scoring the base on held-out rows")
    base_model = load_base(prepared.base_path)
    before = _encoder(base_model)
    few = prepared.splits.train if prepared.splits.test.shape is Shape.LABELLED else None
    base_scores = evaluate(before, prepared.splits.test, few_shot=few)
    if checkpoint is None:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        write_file(run / SETTINGS, json.dumps(settings))
    say("training" if checkpoint is None else f"training, from {checkpoint.name}")
    try:
        fitted = _fit(prepared, run, seed, checkpoint, on_step)
    except TrainingDiverged:
        shutil.rmtree(run, ignore_errors=True)
        raise
    say("scoring the adapter on held-out rows")
    candidate = run / "candidate"
    write_weights(prepared.model, method, prepared.plan.base, candidate)
    after = _encoder(reload(candidate, method, prepared.base_path, name))
    scores = evaluate(after, prepared.splits.test, few_shot=few)
    general_scores, drifted = _general(general_rows, before, after)
    if _collapsed((base_scores, scores), general_scores, drifted):
        shutil.rmtree(run, ignore_errors=True)
        raise TrainingDiverged(
            "training diverged: the adapter gives all texts the same vector. Nothing was published. "
            f"Try a lower --learning-rate (now {prepared.plan.recipe.learning_rate:g})"
        )
    rivals: dict[str, Evaluation] = {}
    ways = {"linear map": lambda: _linear(base_model, prepared, seed)}
    if compare_full and method != "full":
        ways["full fine-tuning"] = lambda: _full(prepared, run, seed, on_step)
    for rival, way in ways.items():
        say(f"training the rival: {rival}")
        try:
            rivals[rival] = way()
        except ScionsError as error:  # the adapter is trained: no rival may cost it
            prepared.plan.notes.append(f"the rival, {rival}, was left out: {error}")
    verdict = judge(base_scores, scores, general=general_scores, drift=drifted, rivals=rivals)
    manifest = manifest_of(name, prepared, fitted, verdict, base_model, candidate, seed, layers)
    examples = shown_queries(prepared.splits.test, before, after)
    path = None
    if verdict.outcome != WORSE or force:
        say("publishing")
        path = publish(folder, lambda staging: _write(staging, candidate, manifest, verdict), force=force)
    shutil.rmtree(run, ignore_errors=True)
    return Result(name, path, verdict, manifest, fitted, prepared.plan.notes, examples)


def _prepare(data: str, **options: Any) -> Prepared:
    named = ("objective", "batch_size", "learning_rate", "epochs", "max_length")
    overrides = parse_overrides({name: options.pop(name, None) for name in named})
    defaults: dict[str, Any] = dict.fromkeys(
        ("base", "trainable_share", "rank", "layers", "dev", "test", "shape", "columns", "limit")
    )
    return prepare(str(data), **{**defaults, "method": "houlsby", "seed": 0, **options}, overrides=overrides)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _settings(prepared: Prepared, seed: int, layers: int | None) -> dict[str, Any]:
    """What must be the same for a training to go on from a checkpoint."""
    plan = prepared.plan
    return {
        "data": fingerprint(prepared.splits.train),
        "base": base_fingerprint(prepared.base_path),
        "method": plan.method,
        "rank": plan.rank,
        "layers": layers,
        "seed": seed,
        **{key: value for key, value in plan.recipe.to_dict().items() if key != "reasons"},
    }


def _find_checkpoint(run: Path, settings: dict[str, Any], resume: bool, force: bool) -> Path | None:
    """The checkpoint to go on from, or None to start anew.

    Raises:
        UsageError: the checkpoint is of another training (names what differs), or there is one and neither resume nor
            force says what to do with it.
    """
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        return None
    if not resume:
        if force:
            return None
        raise UsageError(
            f"{run} holds {checkpoint.name} of an interrupted training: --resume goes on from it, "
            "--force throws it away and starts anew"
        )
    kept = json.loads((run / SETTINGS).read_text())
    differ = [key for key in settings if settings[key] != kept.get(key)]
    if differ:
        told = ", ".join(f"{key} (was {kept.get(key)!r}, is {settings[key]!r})" for key in differ)
        raise UsageError(f"--resume: the interrupted training had other settings: {told}")
    return checkpoint


def _fit(
    prepared: Prepared, run: Path, seed: int, checkpoint: Path | None, on_step: Callable[[Step], None] | None
) -> Fitted:
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
    )


def _encoder(model: SentenceTransformer) -> Remembering:
    # Published figures are in float32; packing changes nothing beyond 1e-6.
    return Remembering(FastEncoder(model, int(model.max_seq_length or 512), bf16=False))


def _general(
    table: Table | None, before: Remembering, after: Remembering
) -> tuple[tuple[Evaluation, Evaluation] | None, float | None]:
    if table is not None:
        return (evaluate(before, table), evaluate(after, table)), None
    with suppress(OSError):
        return None, drift_of(before, after, drift_pairs())
    return None, None


def _collapsed(
    domain: tuple[Evaluation, Evaluation], general: tuple[Evaluation, Evaluation] | None, drift: float | None
) -> bool:
    """Whether a figure of the adapter's is undefined where the base's is not: no two of its similarities differ."""
    pairs = [domain] if general is None else [domain, general]
    figures = [(was.scores[was.primary], now.scores[now.primary]) for was, now in pairs]
    if drift is not None:
        figures.append((100.0, drift))
    return any(math.isfinite(was) and not math.isfinite(now) for was, now in figures)


def _linear(base_model: SentenceTransformer, prepared: Prepared, seed: int) -> Evaluation:
    train = prepared.splits.train
    if len(train) > LINEAR_ROWS:
        chosen = np.random.default_rng(seed).choice(len(train), LINEAR_ROWS, replace=False)
        train = train.take(np.sort(chosen).tolist())
    encoder = FastEncoder(base_model, int(base_model.max_seq_length or 512))
    return evaluate(fit_linear_map(encoder, train, prepared.splits.dev, seed=seed), prepared.splits.test)


def _full(prepared: Prepared, run: Path, seed: int, on_step: Callable[[Step], None] | None) -> Evaluation:
    from scions.training.recipe import LEARNING_RATES, Recipe

    model = load_base(prepared.base_path)
    trained = graft(model, "full")
    recipe = Recipe(**{**prepared.plan.recipe.to_dict(), "learning_rate": LEARNING_RATES["full"]})
    splits = prepared.splits
    fit(model, trained, splits.train, splits.dev, recipe, run=run / "full", seed=seed, on_step=on_step)
    few = splits.train if splits.test.shape is Shape.LABELLED else None
    return evaluate(_encoder(model), splits.test, few_shot=few)


def _write(staging: Path, candidate: Path, manifest: Manifest, verdict: Verdict) -> None:
    shutil.copytree(candidate, staging, dirs_exist_ok=True)
    draw(verdict, staging / PLOT)
    (staging / "README.md").write_text(card(manifest, verdict), encoding="utf-8")
    (staging / "scions.json").write_text(manifest.to_json(), encoding="utf-8")
