"""Errors of the disk, as the libraries that write word them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from scions.errors import AdapterError
from scions.store import disk_errors


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 8384 vs 8278"), True),
        (RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("CUDA out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_a_full_disk_is_told_from_the_rest(error: BaseException, full: bool) -> None:
    assert disk_errors.is_full(error) is full


def test_only_what_lies_below_the_folder_is_its_fault(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "run" / "x"))
    assert disk_errors.permission_problem(error, tmp_path / "run") == f"Permission denied ({tmp_path / 'run' / 'x'})"
    assert disk_errors.permission_problem(error, tmp_path / "other") is None
    assert disk_errors.permission_problem(OSError(errno.EIO, "bad", str(tmp_path / "run")), tmp_path / "run") is None


def test_writable_is_known_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_errors.check_writable(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError, match="file is no folder"):
        disk_errors.check_writable(tmp_path / "file" / "adapters")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(AdapterError, match=f"no permission to write into {tmp_path}"):
        disk_errors.check_writable(tmp_path / "adapters")
