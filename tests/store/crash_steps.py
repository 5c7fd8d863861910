"""Dies (SIGKILL) at a publication's first step on disk, then at the second, and so on; checks after each.

A step is an event of Python's audit hook on files (open, mkdir, rename, rmdir …). Prints how many there were.
Arguments: folder, `exchange` or `rename` (how an existing version is replaced), `fresh` or `force`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path

from scions.store import atomic

spec = importlib.util.spec_from_file_location("crash_loop", Path(__file__).with_name("crash_loop.py"))
assert spec is not None
assert spec.loader is not None
crash_loop = importlib.util.module_from_spec(spec)
spec.loader.exec_module(crash_loop)

root, how, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
target = root / "kept"
if how == "rename":
    atomic.exchange = lambda first, second: False


def dies_at(step: int, version: int) -> bool:
    """Publish in a child that kills itself at the given step; whether it did."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, _: object) -> None:
            nonlocal seen
            if event == "open" or event.startswith(("os.", "shutil.")):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        atomic.write_folder(target, lambda folder: crash_loop.fill(folder, version), force=mode == "force")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


if mode == "force":
    atomic.write_folder(target, lambda folder: crash_loop.fill(folder, 1))
old, step, absent = 1, 0, 0
while True:
    step += 1
    died = dies_at(step, step + 1)
    allowed = {old, step + 1} if mode == "force" else {step + 1}
    if not target.exists():
        absent += 1
        assert mode == "fresh" or how == "rename", "an existing version vanished"
        atomic.clean_up(root)
        if mode == "force":
            assert crash_loop.whole(target) == old, "the old version was not put back"
    if target.exists():
        old = crash_loop.whole(target)
        assert old in allowed, (old, allowed)
    if not died:
        break
    if mode == "fresh" and target.exists():
        shutil.rmtree(target)
atomic.clean_up(root)
assert [path.name for path in root.iterdir()] == ["kept"], list(root.iterdir())
print(step, absent)
