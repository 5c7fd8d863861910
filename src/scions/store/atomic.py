"""Write a folder or a file atomically: a reader sees the old version, the new one or none, never a part."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scions.errors import AdapterError, ScionsError
from scions.store import disk_errors
from scions.store.names import CONFIG_FILE, MANIFEST_FILE, MODULES_FILE, NameRefused

# `force` deletes what it replaces, so it only replaces a folder that holds one of these files.
MARKERS = (MANIFEST_FILE, CONFIG_FILE, MODULES_FILE)

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|old)-(?P<pid>\d+)-(?P<machine>[0-9a-f]{8})[0-9a-f]{8}")
_FOREIGN_AGE = 24 * 3600.0  # seconds after which a leftover of another machine counts as abandoned


def write_folder(folder: str | Path, write: Callable[[Path], None], *, force: bool = False) -> Path:
    """Let `write` fill a staging folder beside `folder`, sync it to disk and rename it into place.

    At any moment, a power cut included, `folder` is absent, the complete old version or the complete new one.
    (With `force`, on systems that cannot exchange two folders in one step, it is absent for an instant; if the process
    dies just then, the next call for the same parent puts the old version back.)

    Args:
        folder: the target; missing parents are made.
        write: called once with an empty folder, which it fills.
        force: replace an existing folder, if it holds one of `MARKERS` or nothing.

    Returns:
        `folder` as an absolute path.

    Raises:
        NameRefused: the folder exists and `force` is off, or it is no published model.
        AdapterError: `write` wrote nothing; the disk is full or cannot be written. Other errors of `write` pass
            through. In each case nothing is left behind and an existing folder is untouched.
    """
    target = _resolve_target(folder)
    check_replaceable(target, force)
    with _staging(target) as staging:
        staging.mkdir()
        write(staging)
        if not any(staging.iterdir()):
            raise AdapterError(f"{target}: nothing was written into it, so nothing was published")
        _sync_tree(staging)
        # Once more: `write` may have run for long, and another process may have published meanwhile.
        check_replaceable(target, force)
        _move_into_place(staging, target, force)
    return target


def write_file(path: str | Path, data: bytes | str) -> Path:
    """Write one file atomically, replacing an older version; text is written as UTF-8.

    Raises:
        ScionsError: the disk is full or the place cannot be written; an older version is untouched.
    """
    target = _resolve_target(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    if target.is_dir():
        raise ScionsError(f"{target}: is a folder; a file is to be written here")
    with _staging(target, len(content)) as staging:
        with open(staging, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staging, target)
        _sync_folder(target.parent)
    return target


@contextmanager
def _staging(target: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a fresh path beside `target`; on an error remove it, and reword the error where it is the disk's."""
    disk_errors.make_folder(target.parent)
    clean_up(target.parent)
    staging = _staging_path(target, "partial")
    try:
        yield staging
    except BaseException as error:
        written = disk_errors.folder_size(staging) if size is None else size
        _remove(staging)
        reworded = _disk_error(error, target, written)
        if reworded is None:
            raise
        raise reworded from error


def clean_up(parent: Path) -> None:
    """Remove what dead processes left in `parent`; put an old version back whose successor is missing."""
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            match = _LEFTOVER.fullmatch(entry.name)
            if match is None or not _is_abandoned(Path(entry.path), match):
                continue
            target = parent / match["name"]
            if match["kind"] == "old" and not os.path.lexists(target):
                with suppress(OSError):
                    os.rename(entry.path, target)
            else:
                _remove(Path(entry.path))


def check_replaceable(target: Path, force: bool) -> None:
    """Raise NameRefused where `write_folder` must not replace what exists at `target`."""
    if not os.path.lexists(target):
        return
    if not force:
        raise NameRefused(f"{target}: exists already; choose another name, or replace it with `force=True`")
    if not target.is_dir():
        raise NameRefused(f"{target}: is not a folder, so it is not replaced; move it away or choose another name")
    if any(target.iterdir()) and not any((target / marker).exists() for marker in MARKERS):
        raise NameRefused(
            f"{target}: holds none of {', '.join(MARKERS)}, so it is no published adapter or model and is "
            "not replaced, not even with `force=True`; choose another name"
        )


def _move_into_place(staging: Path, target: Path, force: bool) -> None:
    """Rename `staging` to `target`; what was there is deleted once the new version is on disk."""
    parent = target.parent
    if not (force and os.path.lexists(target)):
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise AdapterError(f"{target}: another process published it meanwhile; nothing was replaced") from error
        _sync_folder(parent)
        return
    if exchange(staging, target):
        _sync_folder(parent)
        _remove(staging)
        return
    old = _staging_path(target, "old")
    os.rename(target, old)
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old, target)
        raise
    _sync_folder(parent)
    _remove(old)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (Linux' renameat2 with RENAME_EXCHANGE); return False where that is not possible."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library older than glibc 2.28
        return False
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    cwd, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(cwd, os.fsencode(first), cwd, os.fsencode(second), swap) == 0)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                _sync(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder
        _sync(os.fspath(folder), os.O_RDONLY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: BaseException, target: Path, written: int) -> ScionsError | None:
    """Return an error with figures for one of the disk, None for any other."""
    if isinstance(error, ScionsError):
        return None
    if disk_errors.is_full(error):
        # The staging folder is gone already: what is free now was not enough.
        return AdapterError(
            f"{target}: the disk is full: needed more than {disk_errors.format_bytes(written)}, "
            f"free are {disk_errors.free_space(target.parent)} in {target.parent}. Nothing was published."
        )
    why = disk_errors.permission_problem(error, target.parent)
    return None if why is None else AdapterError(f"{target}: cannot be written: {why}")


def _resolve_target(path: str | Path) -> Path:
    # Links above the name are followed; the name itself is what gets replaced.
    target = Path(path).expanduser()
    if not target.name or target.name == "..":
        raise AdapterError(f"{path}: does not end in a name to publish under")
    return target.parent.resolve() / target.name


def _staging_path(target: Path, kind: str) -> Path:
    return target.parent / f".{target.name}.{kind}-{os.getpid()}-{machine_id()}{secrets.token_hex(4)}"


@functools.cache
def machine_id() -> str:
    """Return eight hex digits for this machine and its process numbers (containers on one host count them apart)."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _is_abandoned(path: Path, match: re.Match[str]) -> bool:
    if match["machine"] == machine_id() and os.name == "posix":
        return not _alive(int(match["pid"]))
    # A process elsewhere on a shared disk cannot be asked (on Windows, signal 0 would end it): its age decides.
    with suppress(OSError):
        return time.time() - os.lstat(path).st_mtime > _FOREIGN_AGE
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
