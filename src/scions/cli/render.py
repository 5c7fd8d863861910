"""Figures as tables and words: what every command prints with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

OUTCOME_STYLES = {"better": "green", "no measurable difference": "yellow", "worse": "red", "forgets too much": "red"}


def console() -> Console:
    """For results. Made anew each time, since tests and callers exchange stdout."""
    return Console(highlight=False)


def errors() -> Console:
    """For progress, notes and stages: stderr."""
    return Console(stderr=True, highlight=False)


def print_note(text: str) -> None:
    """One remark, on stderr."""
    errors().print(Text(f"note: {text}", style="yellow"), soft_wrap=True)


def print_stage(text: str) -> None:
    """What is being done now, on stderr."""
    errors().print(Text(f"* {text}", style="cyan"), soft_wrap=True)


def print_line(text: str, style: str = "") -> None:
    """One line of a result, on stdout, with nothing in it read as markup."""
    console().print(Text(text, style=style), soft_wrap=True)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = ()) -> Table:
    """A table of cells; the columns at ``numbers`` are set flush right. Strings are taken as they are."""
    right = set(numbers)
    made = Table(title=Text(title), title_justify="left", title_style="bold")
    for place, heading in enumerate(headings):
        made.add_column(Text(heading), justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def print_table(made: Table) -> None:
    """Print it, wider than 80 columns where stdout is no terminal and so has no width."""
    target = console()
    if not target.is_terminal:
        target = Console(highlight=False, width=max(target.width, 120))
    target.print(made)


def figure(value: Any) -> str:
    """An interval as ``67.10 [65.21, 69.00]``, a number with two digits, None as a dash."""
    if value is None:
        return "-"
    return str(value) if hasattr(value, "low") else f"{value:.2f}"


def signed(value: Any, none: str = "-") -> str:
    """A difference as ``+1.20 [+0.31, +2.11]``, None as ``none``."""
    if value is None:
        return none
    return value.signed if hasattr(value, "signed") else f"{value:+.2f}"


def outcome(text: str) -> Text:
    """A verdict's word in its colour."""
    return Text(text, style=OUTCOME_STYLES.get(text, ""))


def duration(seconds: float) -> str:
    """``8.4 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes as ``3.3 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def percent(share: float | None) -> str:
    """A share of 1 as ``3.60 %``."""
    return "-" if share is None else f"{100 * share:.2f} %"


def shortened(text: str, width: int = 90) -> str:
    """One line of at most ``width`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."
