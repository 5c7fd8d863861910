"""Command line: one file a command, which parses, calls one function of the library and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `scions.cli.app.main`; imported here so that Ctrl-C during the imports is reported too."""
    try:
        from scions.cli.app import main as run

        return run(arguments)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


__all__ = ["main"]
