"""The command line: one file a command, each of which parses, calls one function below and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """As `scions.cli.app.main`, which is imported here, so that Ctrl-C is told as such during the imports too."""
    try:
        from scions.cli.app import main as run

        return run(arguments)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


__all__ = ["main"]
