"""`kernels.cpp` behind ctypes: compiled once a machine, and left out where that is not possible.

Compiled without PyTorch's headers: one second instead of one minute, and neither ninja nor headers are needed. The
result lies in the user's cache folder under a name that holds everything it depends on. ``SCIONS_NATIVE=0`` keeps all
of it away; then, and without a compiler or a processor with bf16 dot products, `scions.encoder.grouped_site` does the
same in PyTorch.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import mmap
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scions.encoder.grouped_site import SitePart
from scions.encoder.precision import has_bf16

logger = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
# As in the source.
BLOCK = 32
MOST_WIDTH, MOST_RANK, MOST_TOKENS, MOST_HEAD = 4096, 1024, 512, 128
WORDS = 8
_LINE, _HUGE = 64, 2**21


@dataclass(frozen=True)
class Kernels:
    """The compiled functions, see the source."""

    grouped_site: Callable[..., None]
    attend: Callable[..., None]


@lru_cache
def kernels() -> Kernels | None:
    """The compiled functions, None where there are none; the reason goes to the log."""
    if os.environ.get("SCIONS_NATIVE") == "0":
        return None
    if platform.system() != "Linux" or not has_bf16(torch.device("cpu")):
        return None
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: a user without a home
        logger.info("no compiled kernel, PyTorch's operators instead: %s", error)
        return None
    if library.prepare() != 0:
        logger.info("no compiled kernel, PyTorch's operators instead: the system refuses the matrix unit")
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    site, attend = library.grouped_site, library.attend
    site.argtypes = [pointer, pointer, pointer, size, pointer, pointer, ctypes.c_float]
    site.argtypes += [pointer, size, pointer, size, pointer, ctypes.c_int]
    attend.argtypes = [pointer, pointer, size, size, pointer, pointer, size, ctypes.c_int]
    site.restype = attend.restype = None
    return Kernels(site, attend)


def _compiled() -> Path:
    compiler = next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError("there is no C++ compiler")
    source = SOURCE.read_bytes()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30).stdout
    # What -march=native stands for depends on the processor: a home folder may serve several machines.
    target = subprocess.run([compiler, "-march=native", "-Q", "--help=target"], capture_output=True, timeout=30).stdout
    name = hashlib.sha256(b"\0".join((source, " ".join(FLAGS).encode(), version, target, _features()))).hexdigest()[:24]
    folder = _folder()
    path = folder / f"kernels-{name}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            made = Path(aside) / "made.so"
            run = subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(made)], capture_output=True, text=True, timeout=300
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


class NativeParts:
    """An adapter's parts as the kernel reads them, one row of its table a site.

    Attributes:
        table: ``[sites, 8]`` int64: addresses and sizes, see ``Part`` in the source.
        bytes: memory it takes.
    """

    def __init__(self, parts: list[SitePart | None]) -> None:
        self.table = np.zeros((len(parts), WORDS), dtype=np.int64)
        self._kept = _side_by_side([None if part is None else _laid_out(part) for part in parts])
        self._ranks = [0 if part is None or part.down is None else len(part.down) for part in parts]
        for row, part in zip(self.table, self._kept, strict=True):
            if part is None:
                continue
            row[:6] = [0 if tensor is None else tensor.data_ptr() for tensor in part[:6]]
            if part.down_bias is not None:
                row[6:] = len(part.down_bias), part.reads_residual

    @property
    def bytes(self) -> int:
        size = sum(t.nbytes for part in self._kept for t in part or () if isinstance(t, Tensor))
        # A huge page is held as a whole.
        return size if size < _HUGE // 2 else size + -size % _HUGE

    def parts(self) -> list[SitePart | None]:
        """The parts it was made of."""
        return [None if p is None else _taken_back(p, rank) for p, rank in zip(self._kept, self._ranks, strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        # Addresses hold in this process and for these tensors alone. Clones, because handing a tensor to another
        # process moves it into shared memory, away from its address.
        return NativeParts, ([None if part is None else _cloned(part) for part in self.parts()],)


def _laid_out(part: SitePart) -> SitePart:
    """Weights as ``[out / 16, in / 32, 16, 16, 2]``, tiles of 16 outputs and pairs of inputs; all else float32."""
    vectors: dict[str, Any] = {
        name: value.float().contiguous()
        for name in ("up_bias", "gamma", "beta")
        if (value := getattr(part, name)) is not None
    }
    if part.down is None or part.down_bias is None or part.up is None:
        return part._replace(**vectors)
    more = -len(part.down) % 32
    down, up = F.pad(part.down, (0, 0, 0, more)), F.pad(part.up, (0, more))
    tiled = {
        name: w.view(len(w) // 16, 16, w.shape[1] // 32, 16, 2).permute(0, 2, 3, 1, 4).contiguous()
        for name, w in (("down", down), ("up", up))
    }
    return part._replace(**vectors, **tiled, down_bias=F.pad(part.down_bias.float(), (0, more)))


def _side_by_side(parts: list[SitePart | None]) -> list[SitePart | None]:
    """The same in one piece of memory, on huge pages where the system has them.

    A batch of many adapters reads all of their weights once: with pages of 4 KiB, finding the pages takes as long.
    """
    sizes = [t.nbytes + -t.nbytes % _LINE for part in parts for t in part or () if isinstance(t, Tensor)]
    memory = _huge_pages(sum(sizes))
    at = 0
    result: list[SitePart | None] = []
    for part in parts:
        moved: dict[str, Any] = {}
        for name, tensor in () if part is None else part._asdict().items():
            if isinstance(tensor, Tensor):
                place = memory[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                moved[name] = place.copy_(tensor)
                at += tensor.nbytes + -tensor.nbytes % _LINE
        result.append(None if part is None else part._replace(**moved))
    return result


def _huge_pages(size: int) -> Tensor:
    """``[size]`` bytes; where most of a huge page would be filled, they start on one."""
    if size < _HUGE // 2:
        return torch.empty(size, dtype=torch.uint8)
    whole = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # a system without them
        whole.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(whole, dtype=torch.uint8)
    start = -memory.data_ptr() % _HUGE
    return memory[start : start + size]


def _taken_back(part: SitePart, rank: int) -> SitePart:
    if part.down is None or part.down_bias is None or part.up is None or part.up_bias is None:
        return part
    down, up = (w.permute(0, 3, 1, 2, 4).reshape(w.shape[0] * 16, -1) for w in (part.down, part.up))
    return part._replace(
        down=down[:rank],
        up=up[:, :rank],
        down_bias=part.down_bias[:rank].to(down.dtype),
        up_bias=part.up_bias.to(up.dtype),
    )


def _cloned(part: SitePart) -> SitePart:
    cloned: dict[str, Any] = {key: v.clone() for key, v in part._asdict().items() if isinstance(v, Tensor)}
    return part._replace(**cloned)


def fits(parts: list[SitePart | None], width: int) -> bool:
    """Whether the kernel covers these parts of a base whose layers are ``width`` wide."""
    if kernels() is None or width % 32 or width > MOST_WIDTH:
        return False
    for part in parts:
        if part is None or part.down is None:
            continue
        device, dtype = part.down.device.type, part.down.dtype
        if device != "cpu" or dtype != torch.bfloat16 or part.activation != "gelu":
            return False
        if part.down.shape[1] != width or len(part.down) > MOST_RANK:
            return False
    return True


class NativeBatch:
    """The kernel's arguments for a batch, made once and used at every site.

    Args:
        parts: of each segment; None: the bare base.
        starts: first row of each segment.
        ends: row behind its last.
        factor: ``[rows]`` float32 strengths, None: 1.
        sites: of the base.
    """

    def __init__(
        self, parts: list[NativeParts | None], starts: list[int], ends: list[int], factor: Tensor | None, sites: int
    ) -> None:
        bare = np.zeros((sites, WORDS), dtype=np.int64)
        self._parts = parts
        self._table = np.stack([bare if part is None else part.table for part in parts])
        self._spans = np.array(
            [
                (number, at, min(at + BLOCK, end))
                for number, (start, end) in enumerate(zip(starts, ends, strict=True))
                for at in range(start, end, BLOCK)
            ],
            dtype=np.int64,
        )
        self._factor = factor
        found = kernels()
        assert found is not None
        self._kernel = found.grouped_site

    def site(self, number: int, y: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        """As `scions.encoder.grouped_site.grouped_site`, at the base's site of this number; ``y`` is overwritten."""
        self._kernel(
            y.data_ptr(), residual.data_ptr(), y.data_ptr(), y.shape[1], gamma.data_ptr(), beta.data_ptr(), eps,
            self._table.ctypes.data + number * WORDS * 8, self._table.strides[0],
            self._spans.ctypes.data, len(self._spans), None if self._factor is None else self._factor.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return y


def attend(projected: Tensor, heads: int, starts: np.ndarray, lengths: np.ndarray) -> Tensor | None:
    """Self-attention within each text, ``[rows, width]``; None where the kernel does not cover it.

    Args:
        projected: ``[rows, 3 * width]``, queries, keys and values.
        heads: number of heads.
        starts: ``[texts]`` int64, first row of each text.
        lengths: ``[texts]`` int64, its tokens. Rows of no text come out as zeros.
    """
    width = projected.shape[1] // 3
    found, head = kernels(), width // heads
    if found is None or projected.dtype != torch.bfloat16 or projected.device.type != "cpu" or head % 32:
        return None
    if head > MOST_HEAD or lengths.max(initial=0) > MOST_TOKENS:
        return None
    projected = projected.contiguous()
    context = projected.new_empty(len(projected), width)
    context[int(lengths.sum()) :] = 0
    found.attend(
        projected.data_ptr(), context.data_ptr(), width, heads, starts.ctypes.data, lengths.ctypes.data, len(lengths),
        torch.get_num_threads(),
    )  # fmt: skip
    return context
