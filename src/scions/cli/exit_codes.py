"""Exit codes and error lines."""

from __future__ import annotations

import typer

from scions.cli.flags import with_flags
from scions.errors import Interrupted, ScionsError, UsageError

FAILURE, USAGE, WORSE, STOPPED = 1, 2, 3, 130


def report(error: ScionsError) -> None:
    """Print an error's message on stderr."""
    label = "Stopped: " if isinstance(error, Interrupted) else "Error: "
    typer.secho(label + with_flags(str(error)), fg="red", err=True)


def exit_code(error: ScionsError) -> int:
    """Return 2 for wrong usage, 130 for Ctrl-C, 1 for everything else."""
    if isinstance(error, Interrupted):
        return STOPPED
    return USAGE if isinstance(error, UsageError) else FAILURE
