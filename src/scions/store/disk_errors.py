"""What the disk refuses: recognised whoever reports it, and told with what was needed and what is free."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from scions.errors import AdapterError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# safetensors reports a full disk in the system's words, PyTorch's writer of checkpoints in its own.
_FULL_IN_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed",
    "unexpected pos",
    "iostream error",
)


def is_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk, or the user's share of it, is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return isinstance(error, Exception) and any(words in str(error) for words in _FULL_IN_WORDS)


def refused(error: BaseException, folder: Path) -> str | None:
    """The system's words where ``error`` is that something at or below ``folder`` must not be written, else None."""
    # Whoever writes may just as well have failed to read something elsewhere: then it is not about the folder.
    if isinstance(error, OSError) and error.errno in _REFUSED and str(error.filename).startswith(str(folder)):
        return f"{error.strerror} ({error.filename})"
    return None


def free(folder: Path) -> str:
    """What is free in ``folder``, as `amount`."""
    return amount(shutil.disk_usage(folder).free)


def amount(size: int) -> str:
    """Bytes for a message: megabytes from 0.1 up."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises AdapterError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be made: {error.strerror}") from error


def check_writable(folder: Path) -> None:
    """Raise AdapterError where ``folder``, or the nearest of its parents that is there, cannot be written into."""
    there = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    if not there.is_dir():
        raise AdapterError(f"{folder}: cannot be a folder of adapters: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise AdapterError(f"{folder}: cannot be written: no permission to write into {there}")
