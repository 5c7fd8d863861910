"""The sources in `kernels/` behind ctypes: compiled once a machine, and left out where that is not possible.

Compiled without PyTorch's headers: one second instead of one minute, and neither ninja nor headers are needed. The
result lies in the user's cache folder under a name that holds everything it depends on. ``SCIONS_NATIVE=0`` keeps all
of it away; then, and without a compiler, PyTorch's operators do the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from scions.engine.precision import has_bf16

logger = logging.getLogger(__name__)
SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
WITHOUT_TILES = ("-mno-amx-tile", "-mno-amx-bf16")


@dataclass(frozen=True)
class Kernels:
    """The compiled functions for bf16, see `kernels.cpp`."""

    grouped_bottleneck: Callable[..., None]
    round_weight: Callable[..., None]
    attend: Callable[..., None]


@lru_cache
def kernels() -> Kernels | None:
    """The compiled functions, None where there are none; the reason goes to the log."""
    if os.environ.get("SCIONS_NATIVE") == "0":
        return None
    if platform.system() != "Linux" or not has_bf16(torch.device("cpu")):
        return None
    try:
        library = ctypes.CDLL(str(_compiled("kernels.cpp", FLAGS)))
        if library.prepare() != 0:
            logger.info("the system refuses the matrix unit; the kernel does without")
            library = ctypes.CDLL(str(_compiled("kernels.cpp", (*FLAGS, *WITHOUT_TILES))))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: a user without a home
        logger.info("no compiled kernel, PyTorch's operators instead: %s", error)
        return None
    pointer, size, site = ctypes.c_void_p, ctypes.c_int64, library.grouped_bottleneck
    site.argtypes = [pointer, pointer, pointer, size, pointer, pointer, ctypes.c_float]
    site.argtypes += [pointer, size, pointer, size, pointer, ctypes.c_int]
    rounded = library.round_weight
    rounded.argtypes = [pointer, size, size, size, size, pointer, pointer]
    site.restype = rounded.restype = None
    return Kernels(site, rounded, _attend(library))


@lru_cache
def float_attention() -> Callable[..., None] | None:
    """Attention in float32, on any processor; None where it could not be compiled."""
    if os.environ.get("SCIONS_NATIVE") == "0" or platform.system() != "Linux":
        return None
    try:
        return _attend(ctypes.CDLL(str(_compiled("attention_float.cpp", FLAGS))))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.info("no compiled attention, PyTorch's operators instead: %s", error)
        return None


def _attend(library: Any) -> Callable[..., None]:
    pointer, size, attend = ctypes.c_void_p, ctypes.c_int64, library.attend
    attend.argtypes = [pointer, pointer, size, size, pointer, pointer, size, ctypes.c_int]
    attend.restype = None
    return attend


def _compiled(source: str, flags: Sequence[str]) -> Path:
    compiler = next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError("there is no C++ compiler")
    sources = b"\0".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    # What -march=native stands for depends on the processor: a home folder may serve several machines.
    target = subprocess.run([compiler, "-march=native", "-Q", "--help=target"], capture_output=True, timeout=30).stdout
    parts = (sources, " ".join(flags).encode(), version, target, _features())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]
    folder = _folder()
    path = folder / f"{Path(source).stem}-{name}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            made = Path(aside) / "made.so"
            run = subprocess.run(
                [compiler, *flags, str(SOURCES / source), "-o", str(made)],
                capture_output=True,
                text=True,
                timeout=300,
            )
            if run.returncode:
                raise OSError(f"{compiler} failed: {run.stderr.strip()[:500]}")
            os.replace(made, path)
    return path


def _features() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return next((line for line in lines if line.startswith("flags")), "").encode()


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "scions" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = folder.stat()
    # What is loaded from here runs as the user.
    if known.st_uid != os.getuid() or known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder} can be written by others")
    return folder
