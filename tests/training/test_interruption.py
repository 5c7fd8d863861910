"""Ctrl-C and --resume; a process killed at many moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from scions.errors import Interrupted, UsageError
from scions.store import list_adapters
from scions.training import train
from scions.training.trainer import COMPLETE, newest_checkpoint


def _stop_at(*places):
    """Return a callback that sends Ctrl-C after a step: the training stops after the next one."""

    def listen(step):
        if step.step + 1 in places:
            os.kill(os.getpid(), signal.SIGINT)

    return listen


def _tensors(result):
    return load_file(result.path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("shape", "rows", "more"),
    [
        ("pairs", 60, {}),
        ("texts", 220, {"objective": "simcse"}),
        ("texts", 220, {}),
        ("retrieval", 60, {"method": "lora"}),
        ("labelled", 60, {"preserve": "all", "general_texts": "own", "method": "lora", "layers": 1}),
    ],
    ids=["contrastive", "simcse-with-dropout", "deletion", "mined", "preserving"],
)
def test_resuming_reaches_what_an_unbroken_run_does(write, short, adapters_aside, shape, rows, more):
    data = write(shape, rows)
    options = {**short, "epochs": 4, "force": True, **more}
    whole = train(data, "whole", **options)
    for stop in (2, 4):
        with pytest.raises(Interrupted, match=rf"stopped at step {stop} of \d+; a checkpoint is saved .*resume=True"):
            train(data, "broken", resume=True, on_step=_stop_at(stop), **options)
        assert list_adapters()[0].name == "whole"
        assert len(list_adapters()) == 1
    started = []
    broken = train(data, "broken", resume=True, on_step=lambda step: started.append(step.step), **options)
    assert started[0] == 5
    expected, found = _tensors(whole), _tensors(broken)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=1e-6), name
    assert broken.fitted.history == whole.fitted.history
    assert not (adapters_aside / ".training-broken").exists()


def test_ctrl_c_at_the_very_last_step(write, short, adapters_aside):
    data, steps = write("pairs"), []
    whole = train(data, "whole", force=True, on_step=steps.append, **short)
    for more in (0, 1):  # before the last step, and after it
        with pytest.raises(Interrupted):
            train(data, "broken", force=True, on_step=_stop_at(steps[-1].steps + more), **short)
        assert newest_checkpoint(adapters_aside / ".training-broken").name == f"checkpoint-{steps[-1].steps}"
    broken = train(data, "broken", resume=True, force=True, **short)
    assert all(torch.equal(_tensors(whole)[name], tensor) for name, tensor in _tensors(broken).items())


def test_a_checkpoint_is_discarded_only_with_force(write, short):
    data = write("pairs")
    with pytest.raises(Interrupted):
        train(data, "legal", on_step=_stop_at(2), **short)
    with pytest.raises(UsageError, match=r"checkpoint-2 .*resume=True.*force=True"):
        train(data, "legal", **short)
    assert train(data, "legal", force=True, **short).path is not None


def test_the_second_ctrl_c_ends_at_once_and_the_handler_comes_back(write, short):
    before = signal.getsignal(signal.SIGINT)

    def twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(write("pairs"), "legal", on_step=twice, **short)
    assert signal.getsignal(signal.SIGINT) is before
    assert list_adapters() == []


def test_other_settings_are_refused_and_named(write, short):
    data = write("pairs")
    with pytest.raises(Interrupted):
        train(data, "legal", on_step=_stop_at(2), **short)
    with pytest.raises(
        UsageError, match=r"other settings: rank \(was 2, is 3\), learning_rate \(was 0\.0012, is 0\.5\)"
    ):
        train(data, "legal", resume=True, **{**short, "rank": 3, "learning_rate": 0.5})
    with pytest.raises(UsageError, match=r"other settings: data"):
        train(write("pairs", name="other", seed=1), "legal", resume=True, **short)
    # Without --resume it starts afresh.
    assert train(data, "legal", force=True, **short).fitted.steps > 0


def test_resuming_what_never_began_just_trains(write, short):
    assert train(write("pairs"), "legal", resume=True, force=True, **short).path is not None


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 10:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert newest_checkpoint(tmp_path / "absent") is None


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killing_at_random_moments_leaves_no_incomplete_adapter(write, short, tiny_base, adapters_aside, tmp_path):
    """One process imports everything and waits; its forks train until they are killed."""
    code = """
import os, sys, time, signal, random, torch
torch.set_num_threads(1)
import sentence_transformers, datasets, matplotlib.figure, matplotlib.backends.backend_agg
from pathlib import Path
from scions.store import list_adapters
from scions.training import train
import scions.training.prepare as prepare
prepare.drift_pairs = lambda: [("the court", "a judge"), ("a pump", "the valve"), ("data", "a model")]
data, base, root = sys.argv[1:]
draw = random.Random(7)
settings = dict(base=base, rank=2, epochs=1, batch_size=16, force=True, resume=True)

def look():
    for entry in list_adapters(root):
        assert entry.problem is None, entry
        assert {path.name for path in entry.path.iterdir()} == {
            "README.md", "adapter_config.json", "adapter_model.safetensors", "scions.json", "scores.png"
        }

train(data, "kept", **settings)
began = time.time()  # of a second one, which like the forks finds everything imported and warm
train(data, "kept", **settings)
length = time.time() - began
killed = 0
while killed < 11:
    child = os.fork()
    if child == 0:
        train(data, draw.choice(["kept", "fresh"]), **settings)
        os._exit(0)
    # Half of the moments over all of a run, half near its end, where it publishes.
    time.sleep(length * (draw.random() * 1.1 if killed % 2 else 0.75 + draw.random() * 0.3))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
    draw.random()
    look()
print("killed", killed)
result = train(data, "kept", **settings)
assert result.path is not None
look()
train(data, "fresh", **settings)
assert sorted(os.listdir(root)) == ["fresh", "kept"], os.listdir(root)
"""
    data = write("pairs", 60)
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(tiny_base), str(adapters_aside)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "killed 11" in done.stdout
