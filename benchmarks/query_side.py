"""Compare training of queries alone with training of both sides: scores and speed.

    python benchmarks/query_side.py --data ../shared/bench [--stage index|grid|final|speed|table|all]

The cells are kept in benchmarks/results/query_side; a cell that exists is not computed again, so the run can be
stopped at any time and started anew. Learning rates (and for query-side the batch size) are chosen on dev with fewer
rows (stage grid); test is scored once, with what dev chose (stage final).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation import query_side_speed as speed
from adaptation import query_side_table as table
from adaptation.cells import Limits
from adaptation.options import parsed, parser_for
from adaptation.query_side_cells import SIDES, Setting, run, write_index
from adaptation.records import ROOT, provenance
from cell_store import Cells

RATES = (3e-4, 6e-4, 1.2e-3)
EXTENSIONS = 3
# None is the recipe's batch. A larger one is a number here: it is cheap where only queries are encoded.
BATCHES: dict[str, tuple[int | None, ...]] = {"query-side": (None,), "two-sided": (None,)}
STAGES = ("index", "grid", "final", "speed", "table")


def main() -> int:
    options = _options()
    limits = Limits(options.data, options.rows, options.test_rows)
    if options.measure:
        side, domain, batch = options.measure
        print(json.dumps(speed.measure(side, domain, limits, int(batch) or None)))
        return 0
    runner = Runner(Cells(options.results), limits, options)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        if stage == "table":
            print(table.write(runner.cells))
        else:
            getattr(runner, stage)()
    return 1 if runner.failed else 0


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--domains", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument(
        "--sides", nargs="+", choices=speed.SPEED_SIDES, default=list(speed.SPEED_SIDES), help="of speed"
    )
    parser.add_argument("--rounds", type=int, default=len(speed.ROUNDS), help="of speed")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "query_side")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--test-rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    return parsed(parser)


class Runner:
    """Goes through the cells in order, one process each."""

    def __init__(self, cells: Cells, limits: Limits, options: argparse.Namespace) -> None:
        self.cells, self.limits, self.domains = cells, limits, options.domains
        self.sides, self.rounds = options.sides, options.rounds
        self.indexes = cells.folder / ".indexes"
        self.provenance = provenance()
        self.failed: list[str] = []

    def index(self) -> None:
        """The base's vectors of every domain, which stay on this machine; the cell says what they cost."""
        for domain in self.domains:
            if not (self.indexes / f"{domain}.npy").exists():
                self.cells.remove(f"index-{domain}")
            self._one(f"index-{domain}", _index, (domain, self.limits, self.indexes))

    def grid(self) -> None:
        for domain in self.domains:
            for side, batches in BATCHES.items():
                for batch in batches:
                    for rate in RATES:
                        self._quality(Setting("grid", domain, side, rate, batch))
                    while (further := self._next_rate(domain, side, batch)) is not None:
                        if not self._quality(Setting("grid", domain, side, further, batch)):
                            break

    def final(self) -> None:
        for domain in self.domains:
            self._quality(Setting("final", domain, "base"))
            for side in BATCHES:
                best = self._best(domain, side)
                if best is None:
                    print(
                        f"final-{domain}-{side}: nothing was chosen on dev yet; run the stage grid before", flush=True
                    )
                    self.failed.append(f"final-{domain}-{side}")
                    continue
                self._quality(Setting("final", domain, side, best["learning_rate"], best["batch_size"]))

    def speed(self) -> None:
        for domain in self.domains:
            best = self._best(domain, "query-side")
            for turn in speed.ROUNDS[: self.rounds]:
                for side in self.sides:
                    name = f"speed-{domain}-{side}-{turn}"
                    batch = (best or {}).get("batch_size") or 0
                    self._one(name, _measure, (side, domain, batch, turn, self.limits))

    def _tried(self, domain: str, side: str) -> list[dict[str, Any]]:
        found = self.cells.all(f"grid-{domain}-{side}")
        return [cell for cell in found if cell["score"] is not None]

    def _best(self, domain: str, side: str) -> dict[str, Any] | None:
        # Of equal ones the recipe's own batch, then the lowest rate.
        return max(
            self._tried(domain, side),
            key=lambda cell: (cell["score"], cell["batch_size"] is None, -cell["learning_rate"]),
            default=None,
        )

    def _next_rate(self, domain: str, side: str, batch: int | None) -> float | None:
        """The rate beyond the edge that won, at most two of them."""
        tried = {c["learning_rate"]: c["score"] for c in self._tried(domain, side) if c["batch_size"] == batch}
        if not tried or len(tried) >= len(RATES) + EXTENSIONS:
            return None
        best = max(sorted(tried), key=lambda rate: tried[rate])
        if best == max(tried):
            return float(f"{best * 2:.3g}")
        return float(f"{best / 2:.3g}") if best == min(tried) else None

    def _quality(self, setting: Setting) -> bool:
        return self._one(setting.name, _compute, (setting, self.limits, self.indexes))

    def _one(self, name: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
        """Compute a cell in a process of its own, unless it exists; whether it is there at the end."""
        if self.cells.has(name) or name in self.failed:
            return self.cells.has(name)
        start = time.perf_counter()
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        process = context.Process(target=_write, args=(name, work, arguments, self.cells, self.provenance))
        process.start()
        process.join()
        if process.exitcode or not self.cells.has(name):
            self.failed.append(name)
            print(f"{name}: failed", flush=True)
            return False
        cell = self.cells.load(name)
        score = cell.get("score", cell.get("pairs_per_second"))
        shown = "diverged" if score is None else f"{score:.2f}"
        print(f"{time.strftime('%H:%M:%S')} {name}: {shown}, {time.perf_counter() - start:.0f} s", flush=True)
        return True


def _write(name: str, work: Callable[..., Any], arguments: tuple[Any, ...], cells: Cells, source: Any) -> None:
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    record, units = work(*arguments)
    cells.write(name, record | {"provenance": source}, units)


def _index(domain: str, limits: Limits, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return write_index(SIDES[domain], limits, folder), {}


def _compute(setting: Setting, limits: Limits, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return run(setting, limits, folder)


def _measure(side: str, domain: str, batch: int, turn: int, limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
    # Started anew and not forked: threads and memory of the measured process are its own.
    command = [sys.executable, str(Path(__file__)), "--data", str(limits.data), "--measure", side, domain, str(batch)]
    for flag, value in (("--rows", limits.rows), ("--test-rows", limits.test_rows)):
        command += [flag, str(value)] if value else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        sys.exit(1)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"cell": f"speed-{domain}-{side}-{turn}", "stage": "speed", "round": turn} | found, {}


if __name__ == "__main__":
    sys.exit(main())
