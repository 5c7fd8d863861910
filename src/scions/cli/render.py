"""Format and print the results of commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scions.cli.flags import with_flags

OUTCOME_STYLES = {"better": "green", "no measurable difference": "yellow", "worse": "red", "forgets too much": "red"}


def console() -> Console:
    """Return a console on the current stdout, for results."""
    return Console(highlight=False)


def errors() -> Console:
    """Return a console on the current stderr, for progress and notes."""
    return Console(stderr=True, highlight=False)


def print_note(text: str) -> None:
    """Print a remark of the library on stderr; parameters in it become flags."""
    errors().print(Text(f"note: {with_flags(text)}", style="yellow"), soft_wrap=True)


def print_stage(text: str) -> None:
    """Print the current stage on stderr; parameters in it become flags."""
    errors().print(Text(f"* {with_flags(text)}", style="cyan"), soft_wrap=True)


def print_line(text: str, style: str = "") -> None:
    """Print one line of a result on stdout; nothing in it is markup."""
    console().print(Text(text, style=style), soft_wrap=True)


def print_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = ()
) -> None:
    """Print a table of cells, at least 120 columns wide where stdout is no terminal.

    The columns at ``numbers`` are right-aligned. Nothing in a string is markup.
    """
    right = set(numbers)
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    target = console()
    if not target.is_terminal:
        target = Console(highlight=False, width=max(target.width, 120))
    target.print(table)


def figure(value: Any) -> str:
    """Format an interval as ``67.10 [65.21, 69.00]``, a number with two digits, None as a dash."""
    if value is None:
        return "-"
    return str(value) if hasattr(value, "low") else f"{value:.2f}"


def signed(value: Any, none: str = "-") -> str:
    """Format a difference as ``+1.20 [+0.31, +2.11]``, None as ``none``."""
    if value is None:
        return none
    return value.signed if hasattr(value, "signed") else f"{value:+.2f}"


def outcome(text: str) -> Text:
    """Color a verdict."""
    return Text(text, style=OUTCOME_STYLES.get(text, ""))


def duration(seconds: float) -> str:
    """Format seconds as ``8.4 s``, ``4 min 12 s`` or ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Format bytes as ``3.3 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def percent(share: float | None) -> str:
    """Format a share of 1 as ``3.60 %``."""
    return "-" if share is None else f"{100 * share:.2f} %"


def shortened(text: str, width: int = 90) -> str:
    """Return the text on one line of at most ``width`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."
