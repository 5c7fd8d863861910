"""Compile the C++ sources of this folder once per machine and load them with ctypes; do without where that fails.

They are compiled without PyTorch's headers: one second instead of one minute, and neither ninja nor headers are needed.
The result is stored in the user's cache folder under a name that depends on everything that went into it.
``SCIONS_NATIVE=0`` disables the kernels; then, and without a compiler, PyTorch's operators compute the same.
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
_ERRORS = (OSError, RuntimeError, subprocess.SubprocessError)  # RuntimeError: a user without a home
_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64


@dataclass(frozen=True)
class Kernels:
    """The compiled functions for bf16, see `kernels.cpp`."""

    grouped_bottleneck: Callable[..., None]
    round_weight: Callable[..., None]
    attend: Callable[..., None]


@lru_cache
def kernels() -> Kernels | None:
    """Return the compiled functions, None where there are none; the reason is logged."""
    if not _is_enabled() or not has_bf16(torch.device("cpu")):
        return None
    try:
        library = _library("kernels.cpp", FLAGS)
        if library.prepare() != 0:
            logger.info("the system denies access to the matrix unit; the kernels run without it")
            library = _library("kernels.cpp", (*FLAGS, *WITHOUT_TILES))
    except _ERRORS as error:
        logger.info("no compiled kernels, using PyTorch's operators: %s", error)
        return None
    bottleneck, rounded = library.grouped_bottleneck, library.round_weight
    bottleneck.argtypes = [_POINTER, _POINTER, _POINTER, _INT64, _POINTER, _POINTER, ctypes.c_float]
    bottleneck.argtypes += [_POINTER, _INT64, _POINTER, _INT64, _POINTER, ctypes.c_int]
    rounded.argtypes = [_POINTER, _INT64, _INT64, _INT64, _INT64, _POINTER, _POINTER]
    bottleneck.restype = rounded.restype = None
    return Kernels(bottleneck, rounded, _attend(library))


@lru_cache
def float_attention() -> Callable[..., None] | None:
    """Return attention in float32, for any processor; None where it could not be compiled."""
    if not _is_enabled():
        return None
    try:
        return _attend(_library("attention_float.cpp", FLAGS))
    except _ERRORS as error:
        logger.info("no compiled attention, using PyTorch's operators: %s", error)
        return None


def _is_enabled() -> bool:
    return os.environ.get("SCIONS_NATIVE") != "0" and platform.system() == "Linux"


def _attend(library: Any) -> Callable[..., None]:
    attend = library.attend
    attend.argtypes = [_POINTER, _POINTER, _INT64, _INT64, _POINTER, _POINTER, _INT64, ctypes.c_int]
    attend.restype = None
    return attend


def _library(source: str, flags: Sequence[str]) -> Any:
    return ctypes.CDLL(str(_compiled(source, flags)))


def _compiled(source: str, flags: Sequence[str]) -> Path:
    """Return the compiled library, from the cache if it is there."""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        raise OSError("there is no C++ compiler")
    sources = b"\0".join(path.read_bytes() for path in sorted(SOURCES.glob("*.[hc]*")))
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    # -march=native depends on the processor, and a home folder may be shared by several machines.
    target = subprocess.run([compiler, "-march=native", "-Q", "--help=target"], capture_output=True, timeout=30).stdout
    parts = (sources, " ".join(flags).encode(), version, target, _processor_features())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]
    folder = _cache_folder()
    path = folder / f"{Path(source).stem}-{digest}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            output = Path(scratch) / "library.so"
            command = [compiler, *flags, str(SOURCES / source), "-o", str(output)]
            run = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if run.returncode:
                raise OSError(f"{compiler} failed: {run.stderr.strip()[:500]}")
            os.replace(output, path)
    return path


def _processor_features() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return next((line for line in lines if line.startswith("flags")), "").encode()


def _cache_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "scions" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    # Libraries loaded from here run with the user's rights.
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder} can be written by others")
    return folder
