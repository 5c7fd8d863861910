"""Full disk, lost permissions and Ctrl-C outside the steps: files left and messages."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

import scions.training.baselines.score as baselines
import scions.training.run as run
import scions.training.train_callback as train_callback
from scions.errors import Interrupted, ScionsError, UsageError
from scions.store import list_adapters
from scions.training import train
from scions.training.checkpoints import SETTINGS, clean_up_on_error, find_checkpoint
from scions.training.trainer import COMPLETE, AdapterTrainer


def _fails_at(monkeypatch, save, error):
    """Checkpoints at every step, of which number ``save`` is cut short by ``error``."""
    monkeypatch.setattr(train_callback, "CHECKPOINT_SECONDS", -1.0)
    real, saved = AdapterTrainer._save, []

    def _save(self, output_dir=None, state_dict=None):
        saved.append(output_dir)
        real(self, output_dir, state_dict)
        if len(saved) == save:
            raise error

    monkeypatch.setattr(AdapterTrainer, "_save", _save)


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_the_first_checkpoint_leaves_nothing(write, short, adapters_aside, monkeypatch):
    _fails_at(monkeypatch, 1, FULL)
    with pytest.raises(
        ScionsError, match=r"\.training-legal: the disk is full: a checkpoint takes about 0\.1 MB, free"
    ):
        train(write("pairs"), "legal", **short)
    assert os.listdir(adapters_aside) == []


def test_a_full_disk_later_keeps_the_checkpoint_before(write, short, adapters_aside, monkeypatch):
    data = write("pairs")
    with monkeypatch.context() as patched:
        _fails_at(patched, 3, FULL)
        with pytest.raises(ScionsError, match=r"disk is full.* checkpoint-2 is kept: resume it with `resume=True`"):
            train(data, "legal", force=True, **short)
    assert list_adapters() == []
    assert not (adapters_aside / ".training-legal" / "checkpoint-3").exists()
    steps = []
    train(data, "legal", force=True, resume=True, on_step=lambda step: steps.append(step.step), **short)
    assert steps[0] == 3


def test_a_run_folder_that_becomes_read_only(write, short, adapters_aside, monkeypatch):
    place = adapters_aside / ".training-legal" / "checkpoint-1"
    _fails_at(monkeypatch, 1, PermissionError(errno.EACCES, "Permission denied", str(place)))
    with pytest.raises(ScionsError, match=r"cannot be written: Permission denied .*Nothing was kept"):
        train(write("pairs"), "legal", **short)
    assert os.listdir(adapters_aside) == []


def test_other_errors_are_not_changed(tmp_path):
    with pytest.raises(ValueError, match="a fault"), clean_up_on_error(tmp_path / "run", 1):
        raise ValueError("a fault")


@pytest.mark.slow
def test_a_full_file_system(write, tiny_base, tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare")
    place = tmp_path / "disk"
    place.mkdir()
    code = """
import os, sys, torch
torch.set_num_threads(1)
import scions.training.prepare as prepare
import scions.training.run as run
import scions.training.train_callback as train_callback
train_callback.CHECKPOINT_SECONDS = -1.0
prepare.drift_pairs = lambda: [("the court", "a judge"), ("a pump", "the valve"), ("data", "a model")]
from scions.errors import ScionsError
try:
    run.train(sys.argv[1], "legal", base=sys.argv[2], rank=2, epochs=1, batch_size=16, adapters=sys.argv[3])
except ScionsError as error:
    print(error)
print(os.listdir(sys.argv[3]))
"""
    words = [sys.executable, "-c", code, str(write("pairs")), str(tiny_base), str(place)]
    mounted = f'mount -t tmpfs -o size=60k tmpfs "{place}" || exit 77; exec "$@"'
    done = subprocess.run([unshare, "-rm", "sh", "-c", mounted, "sh", *words], capture_output=True, text=True)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("needs the right to mount")
    assert "the disk is full" in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("[]\n")


def test_a_baseline_that_fills_the_disk_costs_nothing(write, short, adapters_aside, monkeypatch):
    def full(*_):
        (adapters_aside / ".training-legal" / "full").mkdir()
        raise FULL

    monkeypatch.setattr(baselines, "full_fine_tuning", full)
    stages = []
    result = train(write("pairs"), "legal", compare_full=True, force=True, on_stage=stages.append, **short)
    assert set(result.verdict.baselines) == {"linear map"}
    assert any("full fine-tuning, was left out" in stage and "No space left" in stage for stage in stages)
    assert os.listdir(adapters_aside) == ["legal"]


def test_ctrl_c_in_a_baseline_leaves_it_out(write, short, monkeypatch):
    monkeypatch.setattr(baselines, "full_fine_tuning", lambda *_: (_ for _ in ()).throw(Interrupted("stopped")))
    result = train(write("pairs"), "legal", compare_full=True, force=True, **short)
    assert result.path is not None
    assert "the baseline, full fine-tuning, was left out: stopped by Ctrl-C" in result.notes


def _interrupt(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("not interrupted")


def test_ctrl_c_before_there_is_a_checkpoint(write, short, adapters_aside, monkeypatch):
    monkeypatch.setattr(run, "fit", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(write("pairs"), "legal", **short)
    assert os.listdir(adapters_aside) == []


def test_ctrl_c_while_scoring_keeps_what_was_trained(write, short, monkeypatch):
    data = write("pairs")
    with monkeypatch.context() as patched:
        patched.setattr(run, "write_weights", _interrupt)
        with pytest.raises(Interrupted, match=r"checkpoint-\d+ is kept in .*resume=True"):
            train(data, "legal", **short)
    assert train(data, "legal", resume=True, force=True, **short).path is not None


def test_settings_of_a_checkpoint_that_cannot_be_read(write, short, adapters_aside):
    checkpoint = adapters_aside / ".training-legal" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / COMPLETE).touch()
    for content in ("{", json.dumps(3)):
        (checkpoint.parent / SETTINGS).write_text(content)
        with pytest.raises(UsageError, match=r"settings\.json cannot be read .*force=True"):
            train(write("pairs"), "legal", resume=True, **short)


def test_a_run_folder_without_settings_is_not_resumed(tmp_path):
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / COMPLETE).write_text("")
    assert find_checkpoint(tmp_path, {}, resume=True, force=False) is None
    (tmp_path / SETTINGS).write_text("{}")
    assert find_checkpoint(tmp_path, {}, resume=True, force=False) == checkpoint
