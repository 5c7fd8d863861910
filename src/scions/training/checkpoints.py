"""What an unfinished training leaves: a checkpoint that can be gone on with, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scions.data import Shape, Table, fingerprint
from scions.errors import Interrupted, ScionsError, UsageError
from scions.store import base_fingerprint, disk_errors, write_file
from scions.training.prepare import TrainSetup
from scions.training.trainer import COMPLETE, TrainingDiverged, newest_checkpoint

SETTINGS = "settings.json"


def checkpoint_settings(prepared: TrainSetup, seed: int, layers: int | None) -> dict[str, Any]:
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
        **_of_general_texts(prepared),
        **_of_documents(prepared),
    }


def _of_general_texts(prepared: TrainSetup) -> dict[str, Any]:
    """What distillation holds on to: the name of a file says nothing of its content."""
    if prepared.general is None:
        return {}
    source = prepared.plan.recipe.general_texts
    return {"general_texts_hash": fingerprint(Table(Shape.TEXTS, {"text": prepared.general}, source))}


def _of_documents(prepared: TrainSetup) -> dict[str, Any]:
    """What a query-side training is held against; nothing of any other."""
    if prepared.index is None:
        return {}
    file = prepared.index.file
    return {"query_side": True, "documents": None if file is None else {**file.record, "path": file.path.name}}


def find_checkpoint(run: Path, settings: dict[str, Any], resume: bool, force: bool) -> Path | None:
    """The checkpoint to go on from, or None to start anew.

    Raises:
        UsageError: the checkpoint is of another training (names what differs), or there is one and neither resume nor
            force says what to do with it.
    """
    checkpoint = newest_checkpoint(run)
    # The settings are written before any checkpoint: without them the folder was being removed when the end came.
    if checkpoint is None or not (run / SETTINGS).exists():
        return None
    if not resume:
        if force:
            return None
        raise UsageError(
            f"{run} holds {checkpoint.name} of an interrupted training: --resume goes on from it, "
            "--force throws it away and starts anew"
        )
    try:
        kept = dict(json.loads((run / SETTINGS).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"--resume: {run / SETTINGS} cannot be read ({error}); --force in its place starts anew"
        ) from error
    differ = [key for key in {**kept, **settings} if settings.get(key) != kept.get(key)]
    if differ:
        told = ", ".join(f"{key} (was {kept.get(key)!r}, is {settings.get(key)!r})" for key in differ)
        raise UsageError(f"--resume: the interrupted training had other settings: {told}")
    return checkpoint


def start_run_folder(run: Path, settings: dict[str, Any]) -> None:
    """An empty folder for the checkpoints of a training with ``settings``."""
    shutil.rmtree(run, ignore_errors=True)
    disk_errors.make_folder(run)
    write_file(run / SETTINGS, json.dumps(settings))


@contextmanager
def clean_up_on_error(run: Path, checkpoint_bytes: int) -> Iterator[None]:
    """Meanwhile, whatever ends the training early leaves ``run`` with whole checkpoints only, or not at all.

    Args:
        run: the folder of the checkpoints.
        checkpoint_bytes: about what one of them takes.

    Raises:
        ScionsError: the disk is full or ``run`` cannot be written, whoever reported it.
        Interrupted: Ctrl-C outside the steps, where an earlier checkpoint can be gone on with.
    """
    try:
        yield
    except TrainingDiverged:
        shutil.rmtree(run, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        kept = remove_incomplete(run)
        if kept is None:
            raise
        raise Interrupted(f"stopped; {kept.name} is kept in {run}. Go on with the same command and --resume") from None
    except ScionsError:
        remove_incomplete(run)
        raise
    except Exception as error:
        full, words = disk_errors.is_full(error), disk_errors.permission_problem(error, run)
        if not full and words is None:
            raise
        kept = remove_incomplete(run)
        why = f"cannot be written: {words}"
        if full:  # what is free is looked at now: what was cut short is gone, and what is free was not enough
            why = f"the disk is full: a checkpoint takes about {disk_errors.format_bytes(checkpoint_bytes)}, free are "
            why += f"{disk_errors.free_space(run.parent)} in {run.parent}"
        left = "Nothing was kept" if kept is None else f"{kept.name} is kept: --resume goes on from it"
        raise ScionsError(f"{run}: {why}. {left}, and nothing was published") from error


def remove_incomplete(run: Path) -> Path | None:
    """The newest whole checkpoint, with those cut short removed; where there is none, all of ``run`` is."""
    for path in run.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
    kept = newest_checkpoint(run)
    if kept is None:
        shutil.rmtree(run, ignore_errors=True)
    return kept
