"""Measure how each part of preservation keeps general knowledge, alone and together.

    python benchmarks/preservation.py --data ../shared/bench [--stage grid|final|labels|table|all]

The cells are kept in benchmarks/results/preservation; one that exists is not computed again. Stage grid chooses
weight and texts of the distillation on dev rows and on general rows outside STS7 (sts/general_dev). Stage final scores
test rows and STS7 once. Stage labels asks the question of Ke et al. 2022: a base adapted on unlabelled texts of a task,
then few labels. General texts named as "named" are sentences of tasks/{mr,subj,trec,mpqa,cr}: none of STS.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation.cells import Limits
from adaptation.options import parsed, parser_for
from adaptation.records import ROOT, provenance
from cell_store import Cells
from preserving import labels, table
from preserving.cells import DOMAINS, FINAL, GRID, run

STAGES = ("grid", "final", "labels", "table")


def main() -> int:
    options = _options()
    cells = Cells(options.results)
    source = provenance()
    failed = 0
    for stage in STAGES if options.stage == "all" else (options.stage,):
        if stage == "table":
            print(table.write(cells))
            continue
        for name, work in _work(stage, options):
            if cells.has(name):
                continue
            start = time.perf_counter()
            if options.dry_run:
                print("missing", name)
                continue
            # A process of its own: nothing that one cell leaves reaches the next.
            process = multiprocessing.get_context("fork").Process(target=_compute, args=(name, work, cells, source))
            process.start()
            process.join()
            failed += process.exitcode != 0
            told = cells.load(name)["told"] if cells.has(name) else "failed"
            print(f"{time.strftime('%H:%M:%S')} {name}: {told}, {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if failed else 0


def _work(stage: str, options: argparse.Namespace) -> Any:
    limits = Limits(options.data, options.rows, options.test_rows)
    if stage == "labels":
        for method, way in labels.CELLS:
            if options.ways and way not in options.ways:
                continue
            for task in options.tasks:
                yield f"labels-{task}-{method}-{way}", (labels.run, (task, method, way, limits))
        return
    for variant in GRID if stage == "grid" else FINAL:
        if options.ways and variant.name not in options.ways:
            continue
        for domain in options.domains:
            seeds = (0,) if stage == "grid" or variant.name not in options.seeds_of else options.seeds
            for seed in seeds:
                name = f"{stage}-{domain}-{variant.name}" + (f"-seed{seed}" if stage == "final" else "")
                yield name, (run, (stage, domain, variant, limits, seed))


def _compute(name: str, work: Any, cells: Cells, source: dict[str, Any]) -> None:
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    function, arguments = work
    record, units = function(*arguments)
    cells.write(name, {"cell": name, **record, "provenance": source}, units)


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--tasks", nargs="+", choices=labels.TASKS, default=list(labels.TASKS))
    parser.add_argument("--ways", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seeds-of", nargs="+", default=[variant.name for variant in FINAL])
    parser.add_argument("--dry-run", action="store_true", help="list the cells that are missing")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "preservation")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--test-rows", type=int, help=argparse.SUPPRESS)
    return parsed(parser)


if __name__ == "__main__":
    sys.exit(main())
