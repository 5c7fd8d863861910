"""Evaluations as cells, and what machine and source a cell came from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cell_store import Cells

from scions.data.shapes import Shape
from scions.evaluation import Evaluation, metrics
from scions.evaluation.scores import BinaryOfUnits, MeanOfUnits, SpearmanOfUnits, VMeasureOfUnits

ROOT = Path(__file__).resolve().parents[2]
_BINARY = {"average_precision": metrics.average_precision, "roc_auc": metrics.roc_auc}


def evaluation(cells: Cells, name: str) -> tuple[Evaluation, np.ndarray | None]:
    """A cell's Evaluation, ready to be resampled, and the test rows that have no text in common with train."""
    result, arrays = cells.load(name)["result"], cells.units(name)
    unseen = arrays.pop("unseen", None)
    shape = Shape.of(result["shape"])
    units = _unpacked(arrays)
    return Evaluation(shape, result["primary"], result["n"], result["scores"], units, result["rows"]), unseen


def packed(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Per-unit results as plain arrays; metrics that would take much room (all pairs of rows) are left out."""
    arrays: dict[str, np.ndarray] = {}
    for metric, unit in evaluation.units.items():
        if isinstance(unit, MeanOfUnits):
            arrays[f"{metric}:mean"] = unit.values.astype(np.float32)
        elif isinstance(unit, SpearmanOfUnits):
            arrays[f"{metric}:cosines"] = unit.cosines.astype(np.int32)
            arrays[f"{metric}:gold"] = unit.gold.astype(np.int16)
        elif isinstance(unit, BinaryOfUnits):
            arrays[f"{metric}:scores"] = np.asarray(unit.scores, dtype=np.float32)
            arrays[f"{metric}:labels"] = np.asarray(unit.labels).astype(np.int8)
        elif isinstance(unit, VMeasureOfUnits):
            arrays[f"{metric}:classes"] = unit.labels.astype(np.int16)
            arrays[f"{metric}:clusters"] = unit.clusters.astype(np.int16)
    return arrays


def summary(result: Evaluation) -> dict[str, Any]:
    """What `evaluation` needs beside the units."""
    return {
        "shape": result.shape.value,
        "primary": result.primary,
        "n": result.n,
        "scores": result.scores,
        "rows": result.rows,
    }


def _unpacked(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    units: dict[str, Any] = {}
    for key, values in arrays.items():
        metric, part = key.rsplit(":", 1)
        if part == "mean":
            units[metric] = MeanOfUnits(values)
        elif part == "cosines":
            units[metric] = SpearmanOfUnits(values, arrays[f"{metric}:gold"])
        elif part == "scores":
            units[metric] = BinaryOfUnits(_BINARY[metric], values, arrays[f"{metric}:labels"].astype(np.int64))
        elif part == "clusters":
            units[metric] = VMeasureOfUnits(arrays[f"{metric}:classes"].astype(np.int64), values.astype(np.int64))
    return units


def provenance() -> dict[str, Any]:
    """Commit, source, command line, machine and library versions. Names no path of this machine."""
    import peft
    import sentence_transformers
    import torch
    import transformers

    from scions.engine.precision import has_bf16
    from scions.version import __version__

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    status = _git("status", "--porcelain", "--", "src", "pyproject.toml", "benchmarks/*.py", "benchmarks/adaptation")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if status is None else bool(status),
        "source_sha256": _source_hash(),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folders, sys.argv[1:])]),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "device": device.type,
            "torch_threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "native_bf16": has_bf16(device),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            "scions": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sentence-transformers": sentence_transformers.__version__,
            "peft": peft.__version__,
        },
    }


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _source_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in (ROOT / "src" / "scions").rglob("*") if p.suffix in (".py", ".cpp", ".h")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _without_folders(argument: str) -> str:
    flag, equals, value = argument.rpartition("=")
    return flag + equals + (Path(value).name if os.sep in value else value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


class PeakMemory:
    """Peak resident memory since `start`, less what was resident then, in MiB."""

    def __init__(self) -> None:
        import psutil

        self.process = psutil.Process()
        self.before = 0

    def start(self) -> None:
        self.before = self.process.memory_info().rss
        with contextlib.suppress(OSError):
            # Linux: forget the peak so far, which loading the model may have set.
            Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> float:
        return round((_peak() - self.before) / 2**20, 1)


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
