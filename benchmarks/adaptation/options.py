"""Options of all benchmarks that need the benchmark data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--data``, or SCIONS_BENCH in its place; `parsed` reads it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("SCIONS_BENCH")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="or SCIONS_BENCH")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; ends with a message where the data's folder is not there."""
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        parser.error("--data (or SCIONS_BENCH) must name the folder with the benchmark's data")
    options.data = options.data.resolve()
    return options
