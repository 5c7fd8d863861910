"""Measure comparing, mixing, selecting, routing and pruning of adapters.

    python benchmarks/mixing.py --data ../shared/bench [--stage adapters|mixtures|starts|greedy|...|table|all]

Twelve adapters from one initialisation are trained first (about a minute each on one core). The cells are kept in
benchmarks/results/mixing, and a cell that exists is not computed again, so the run can be stopped at any time.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation.options import parsed, parser_for
from adaptation.records import ROOT, provenance
from cell_store import Cells
from combining import report, stages
from combining.domains import DOMAINS
from combining.workshop import Workshop

STAGES = {
    "adapters": stages.adapters,
    "mixtures": stages.mixtures,
    "starts": stages.starts,
    "greedy": stages.greedily,
    "novel": stages.novel,
    "routing": stages.routing,
    "pruning": stages.pruning,
}


def main() -> int:
    options = _options()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cells = Cells(options.results, provenance())
    adapters = options.adapters or ROOT / ".runs" / "mixing-adapters"
    shop = Workshop(cells, options.data, adapters, options.rows, options.held_out, options.domains)
    for name, stage in STAGES.items():
        if options.stage in (name, "all"):
            stage(shop)
    if options.stage in ("table", "all"):
        print(report.write(cells, options.results))
    return 0


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--stage", choices=(*STAGES, "table", "all"), default="all")
    parser.add_argument("--domains", nargs="+", choices=tuple(DOMAINS), default=list(DOMAINS))
    parser.add_argument("--rows", type=int, default=2000, help="training rows of a domain")
    parser.add_argument("--held-out", type=int, default=1000, help="dev and test rows of a domain")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "mixing")
    parser.add_argument("--adapters", type=Path, help="where the adapters are kept (default: .runs/mixing-adapters)")
    return parsed(parser)


if __name__ == "__main__":
    sys.exit(main())
