"""Find, validate and clean up the checkpoints of an interrupted training."""

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
# A checkpoint holds each trained value, its best so far and two moments of the optimizer, in float32.
_BYTES_PER_VALUE, _OVERHEAD_BYTES = 16, 100_000


def checkpoint_settings(setup: TrainSetup) -> dict[str, Any]:
    """Return what must be the same for a checkpoint to be resumed."""
    plan, options = setup.plan, setup.options
    settings = {
        "data": fingerprint(setup.splits.train),
        "base": base_fingerprint(setup.base_path),
        "method": plan.method,
        "rank": plan.rank,
        "layers": options.layers,
        "seed": options.seed,
        **{key: value for key, value in plan.recipe.to_dict().items() if key != "reasons"},
    }
    if setup.distilled is not None:  # the name of a file says nothing about its content
        texts = Table(Shape.TEXTS, {"text": setup.distilled}, plan.recipe.general_texts)
        settings["general_texts_hash"] = fingerprint(texts)
    if setup.index is not None:
        file = setup.index.file
        documents = None if file is None else {**file.record, "path": file.path.name}
        settings |= {"query_side": True, "documents": documents}
    return settings


def find_checkpoint(run: Path, settings: dict[str, Any], resume: bool, force: bool) -> Path | None:
    """Return the checkpoint to resume from, or None to start from the beginning.

    Raises:
        UsageError: the checkpoint is of a training with other settings (names them), or there is one and neither
            ``resume`` nor ``force`` says what to do with it.
    """
    checkpoint = newest_checkpoint(run)
    # The settings are written before any checkpoint: a folder without them was being removed when the process ended.
    if checkpoint is None or not (run / SETTINGS).exists():
        return None
    if not resume:
        if force:
            return None
        raise UsageError(
            f"{run} holds {checkpoint.name} of an interrupted training: resume it with `resume=True`, or discard it "
            "and start again with `force=True`"
        )
    try:
        before = dict(json.loads((run / SETTINGS).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{run / SETTINGS} cannot be read ({error}), so the training cannot be resumed; start again with "
            "`force=True`"
        ) from error
    differ = [key for key in {**before, **settings} if settings.get(key) != before.get(key)]
    if differ:
        changes = ", ".join(f"{key} (was {before.get(key)!r}, is {settings.get(key)!r})" for key in differ)
        raise UsageError(f"{run} cannot be resumed: the interrupted training had other settings: {changes}")
    return checkpoint


def start_run_folder(run: Path, settings: dict[str, Any]) -> None:
    """Create an empty folder for the checkpoints of a training with ``settings``."""
    shutil.rmtree(run, ignore_errors=True)
    disk_errors.make_folder(run)
    write_file(run / SETTINGS, json.dumps(settings))


@contextmanager
def clean_up_on_error(run: Path, trained_values: int) -> Iterator[None]:
    """Where the block ends in an error, leave ``run`` with complete checkpoints only, or remove it.

    The size of a checkpoint follows from the number of trained values.

    Raises:
        ScionsError: the disk is full or ``run`` cannot be written.
        Interrupted: Ctrl-C outside the steps, where an earlier checkpoint can be resumed.
    """
    try:
        yield
    except TrainingDiverged:
        shutil.rmtree(run, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        checkpoint = _remove_incomplete(run)
        if checkpoint is None:
            raise
        raise Interrupted(
            f"stopped; {checkpoint.name} is kept in {run}. Resume it with the same options and `resume=True`"
        ) from None
    except ScionsError:
        _remove_incomplete(run)
        raise
    except Exception as error:
        full, words = disk_errors.is_full(error), disk_errors.permission_problem(error, run)
        if not full and words is None:
            raise
        checkpoint = _remove_incomplete(run)
        why = f"cannot be written: {words}"
        if full:  # measured only now: the incomplete checkpoint is gone, and what is free was not enough
            size = disk_errors.format_bytes(_BYTES_PER_VALUE * trained_values + _OVERHEAD_BYTES)
            free = disk_errors.free_space(run.parent)
            why = f"the disk is full: a checkpoint takes about {size}, free are {free} in {run.parent}"
        left = "Nothing was kept" if checkpoint is None else f"{checkpoint.name} is kept: resume it with `resume=True`"
        raise ScionsError(f"{run}: {why}. {left}, and nothing was published") from error


def _remove_incomplete(run: Path) -> Path | None:
    """Remove incomplete checkpoints, or all of ``run`` where none is complete. Return the newest complete one."""
    for path in run.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
    newest = newest_checkpoint(run)
    if newest is None:
        shutil.rmtree(run, ignore_errors=True)
    return newest
