"""Compare adapters with full fine-tuning, LoRA, a linear map and the base, on five domains.

    python benchmarks/domain_adaptation.py --data ../shared/bench [--stage grid|final|seeds|speed|table|all]

The cells are kept in benchmarks/results/domain_adaptation; a cell that exists is not computed again, so the run can
be stopped at any time and started anew. Learning rates are chosen on dev with one seed: four or more with fewer rows
(stage grid), the best two of them again with all rows (stage final). Test is scored once, with what dev chose.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation import speed, table
from adaptation.cells import Limits, Task, rate_name, run
from adaptation.domains import DOMAINS
from adaptation.options import parsed, parser_for
from adaptation.records import ROOT, provenance
from cell_store import Cells

METHODS = ("houlsby", "full", "lora", "pfeiffer")
OTHERS = ("base", "linear", "upper")
RATES = {"full": (1e-5, 2e-5, 5e-5, 1e-4)} | dict.fromkeys(
    ("houlsby", "lora", "pfeiffer"), (3e-4, 6e-4, 1.2e-3, 2.4e-3)
)
EXTENSIONS = 2
SEED_DOMAINS = ("patents", "stackoverflow", "banking77", "medical")
STAGES = ("grid", "final", "speed", "seeds", "table")


def main() -> int:
    options = _options()
    _quieten()
    limits = Limits(options.data, options.rows, options.test_rows)
    if options.measure:
        side, domain = options.measure
        print(json.dumps(speed.measure(side, domain, limits)))
        return 0
    cells = Cells(options.results)
    stages = STAGES if options.stage == "all" else (options.stage,)
    runner = Runner(cells, limits, options)
    if options.dry_run:
        runner.list(stages)
        return 0
    for stage in stages:
        if stage == "table":
            print(table.write(cells))
        elif stage == "speed":
            runner.speed()
        else:
            runner.quality(stage)
    return 1 if runner.failed else 0


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--domains", nargs="+", choices=tuple(DOMAINS), default=list(DOMAINS))
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *OTHERS), default=[*METHODS, *OTHERS])
    parser.add_argument("--dry-run", action="store_true", help="list the cells and which of them exist")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "domain_adaptation")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--test-rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parsed(parser)


def _quieten() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


class Runner:
    """Goes through the cells in order, one process each, and says how long the rest will take."""

    def __init__(self, cells: Cells, limits: Limits, options: argparse.Namespace) -> None:
        self.cells, self.limits = cells, limits
        self.domains, self.methods = options.domains, options.methods
        self.provenance = provenance()
        self.failed: list[str] = []

    # Which cells there are.

    def tasks(self, stage: str) -> Iterator[Task]:
        """The cells of a stage, computed ones included; those of the grid grow while results come in."""
        for domain in self.domains:
            if stage == "grid":
                yield from self._grid(domain)
            elif stage == "final":
                for method in ("base", *METHODS, "linear", "upper"):
                    if method in self.methods:
                        rates = (*self._chosen(domain, method), None, None)
                        yield Task("final", domain, method, rates[0], second_rate=rates[1])
            elif stage == "seeds" and domain in SEED_DOMAINS:
                for method in METHODS:
                    if method in self.methods:
                        rates = (*self._of_final(domain, method), None)
                        for seed in (1, 2):
                            yield Task("final", domain, method, rates[0], seed)

    def _grid(self, domain: str) -> Iterator[Task]:
        methods = [method for method in METHODS if method in self.methods]
        for place in range(4):
            for method in methods:
                yield Task("grid", domain, method, RATES[method][place])
        for method in methods:
            for rate in sorted(set(self._tried(domain, method)) - set(RATES[method])):
                yield Task("grid", domain, method, rate)
            while (rate := self._next_rate(domain, method)) is not None:
                task = Task("grid", domain, method, rate)
                yield task
                if not self.cells.has(task.name):  # it failed, or is only listed
                    break

    def _tried(self, domain: str, method: str) -> dict[float, float]:
        found = (cell for cell in self.cells.all(f"grid-{domain}-{method}"))
        return {cell["learning_rate"]: float("-inf") if cell["score"] is None else cell["score"] for cell in found}

    def _next_rate(self, domain: str, method: str) -> float | None:
        """The rate beyond the edge of the grid that won, at most two of them; None where the grid is complete."""
        tried = self._tried(domain, method)
        if not set(RATES[method]) <= set(tried) or len(tried) >= len(RATES[method]) + EXTENSIONS:
            return None
        best = _best(tried)
        if best == max(tried):
            return float(f"{best * 2:.3g}")
        return float(f"{best / 2:.3g}") if best == min(tried) else None

    def _chosen(self, domain: str, method: str) -> tuple[float, ...]:
        """The two rates dev preferred in the grid; the upper layers take the one rate that all layers ended with."""
        if method in ("base", "linear"):
            return ()
        if method == "upper":
            return self._of_final(domain, "houlsby")
        tried = self._tried(domain, method)
        complete = set(RATES[method]) <= set(tried) and self._next_rate(domain, method) is None
        return tuple(sorted(tried, key=lambda rate: (-tried[rate], rate))[:2]) if complete else ()

    def _of_final(self, domain: str, method: str) -> tuple[float, ...]:
        """The rate of the first seed's final cell."""
        name = Task("final", domain, method).name
        return (self.cells.load(name)["learning_rate"],) if self.cells.has(name) else ()

    # Computing them.

    def quality(self, stage: str) -> None:
        for task in self.tasks(stage):
            if self.cells.has(task.name) or task.name in self.failed:
                continue
            if task.method not in ("base", "linear") and task.learning_rate is None:
                print(f"{task.name}: no learning rate is chosen yet; run the stages before first", flush=True)
                self.failed.append(task.name)
                continue
            self._one(task.name, stage, lambda task=task: self._in_process(task))

    def speed(self) -> None:
        for name, side, domain, turn in self._speed_cells():
            if not self.cells.has(name):
                self._one(name, "speed", lambda n=name, s=side, d=domain, t=turn: self._measure(n, s, d, t))

    def _speed_cells(self) -> Iterator[tuple[str, str, str, int]]:
        for domain in speed.ROWS:
            for turn in speed.ROUNDS:
                for side in speed.SIDES[domain]:
                    if domain in self.domains:
                        yield f"speed-{domain}-{side}-{turn}", side, domain, turn

    def _one(self, name: str, stage: str, compute: Callable[[], bool]) -> None:
        start = time.perf_counter()
        if not compute():
            self.failed.append(name)
            print(f"{name}: failed", flush=True)
            return
        cell = self.cells.load(name)
        score = cell.get("score", cell.get("pairs_per_second"))
        shown = "diverged" if score is None else f"{score:.2f}"
        print(
            f"{time.strftime('%H:%M:%S')} {name}: {shown}, {time.perf_counter() - start:.0f} s; "
            f"rest of {stage} about {self._rest(stage) / 60:.0f} min",
            flush=True,
        )

    def _rest(self, stage: str) -> float:
        """Seconds the missing cells of the stage will take, by the cells of the same kind that exist."""
        kind = "final" if stage == "seeds" else stage
        walls: dict[str, list[float]] = {}
        for cell in self.cells.all(kind):
            for key in ("", cell["domain"]):
                walls.setdefault(key, []).append(cell["wall_seconds"])
        if stage == "speed":
            missing = [domain for name, _, domain, _ in self._speed_cells() if not self.cells.has(name)]
        else:
            missing = [task.domain for task in self.tasks(stage) if not self.cells.has(task.name)]
        known = {key: sum(values) / len(values) for key, values in walls.items()}
        return sum(known.get(domain, known.get("", 0.0)) for domain in missing)

    def _in_process(self, task: Task) -> bool:
        # A process of its own keeps one cell's memory out of the next one's figure. Forked where possible: it starts
        # at once, and all cells run the source as it was when the benchmark started.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        process = context.Process(target=_compute, args=(task, self.limits, self.cells, self.provenance))
        process.start()
        process.join()
        return process.exitcode == 0 and self.cells.has(task.name)

    def _measure(self, name: str, side: str, domain: str, turn: int) -> bool:
        command = [sys.executable, str(Path(__file__)), "--data", str(self.limits.data), "--measure", side, domain]
        if self.limits.rows:
            command += ["--rows", str(self.limits.rows)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            return False
        record: dict[str, Any] = {"cell": name, "stage": "speed", "round": turn}
        record |= json.loads(done.stdout.strip().splitlines()[-1])
        record |= {"wall_seconds": round(time.perf_counter() - start, 1), "provenance": provenance()}
        self.cells.write(name, record)
        return True

    def list(self, stages: tuple[str, ...]) -> None:
        """Print every cell and whether it exists, then how many there are."""
        for stage in stages:
            if stage == "table":
                continue
            names = [c[0] for c in self._speed_cells()] if stage == "speed" else [t.name for t in self.tasks(stage)]
            for name in names:
                print("  done   " if self.cells.has(name) else "  missing", name)
            print(f"{stage}: {len(names)} cells, {sum(map(self.cells.has, names))} done")


def _best(tried: dict[float, float]) -> float:
    """The rate with the highest score on dev; of equal ones the lowest."""
    return max(sorted(tried), key=lambda rate: tried[rate])


def _compute(task: Task, limits: Limits, cells: Cells, source: dict[str, Any]) -> None:
    _quieten()
    record, units = run(task, limits)
    if record["learning_rate"] is not None:
        record["learning_rate_name"] = rate_name(record["learning_rate"])
    cells.write(task.name, record | {"provenance": source}, units)


if __name__ == "__main__":
    sys.exit(main())
