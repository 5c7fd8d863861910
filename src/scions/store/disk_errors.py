"""Turn disk-full and permission errors into messages that name the space needed and free."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from scions.errors import AdapterError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# safetensors reports a full disk in the system's words, PyTorch's checkpoint writer in its own.
_FULL_MESSAGES = (
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed",
    "unexpected pos",
    "iostream error",
)


def is_full(error: BaseException) -> bool:
    """Return whether `error` says that the disk, or the user's share of it, is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return isinstance(error, Exception) and any(text in str(error) for text in _FULL_MESSAGES)


def permission_problem(error: BaseException, folder: Path) -> str | None:
    """Return the system's message where `error` denies writing at or below `folder`, else None."""
    # A writer may also have failed to read something elsewhere, which is no fault of the folder.
    if isinstance(error, OSError) and error.errno in _REFUSED and str(error.filename).startswith(str(folder)):
        return f"{error.strerror} ({error.filename})"
    return None


def free_space(folder: Path) -> str:
    """Return the free space in `folder` as `format_bytes` writes it."""
    return format_bytes(shutil.disk_usage(folder).free)


def format_bytes(size: int) -> str:
    """Format a number of bytes for a message: megabytes from 0.1 up."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in `folder`; what cannot be read is left out, where `rglob` would stop."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises AdapterError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be made: {error.strerror}") from error


def check_writable(folder: Path) -> None:
    """Raise AdapterError where `folder`, or its nearest existing parent, cannot be written into."""
    existing = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    if not existing.is_dir():
        raise AdapterError(f"{folder}: cannot be a folder of adapters: {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise AdapterError(f"{folder}: cannot be written: no permission to write into {existing}")
