"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from scions.errors import UsageError


def optional(help: str, default: str, *flags: str) -> Any:
    """Return an option that may be left out; ``default`` describes what holds then."""
    return typer.Option(*flags, help=help, show_default=default)


AdaptersFolder = Annotated[
    Path | None, optional("The folder of adapters.", "$SCIONS_ADAPTERS, or ./adapters", "--adapters")
]
DataShape = Annotated[str | None, optional("The shape of the data.", "recognized by the columns", "--shape")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts encoded together.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
ReplaceOutput = Annotated[bool, typer.Option("--force", help="Replace the output.")]


def base_option(default: str) -> Any:
    """Return the option ``--base`` with a description of its default."""
    return typer.Option("--base", help="Base model: a folder or an id on the Hub.", show_default=default)


def renamed_flags(**names: str) -> type[TyperCommand]:
    """Return a command class that still accepts flags of version 0.1 and warns: ``kept="density"`` for ``--kept``.

    ``--output`` for ``--adapters`` is always among them.
    """
    renamed = {f"--{old}": f"--{new}" for old, new in {"output": "adapters", **names}.items()}

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            words = []
            for word in args[:end]:
                flag, equals, value = word.partition("=")
                if flag in renamed:
                    typer.secho(f"Warning: {flag} is deprecated; use {renamed[flag]}", fg="yellow", err=True)
                    word = renamed[flag] + equals + value
                words.append(word)
            return super().parse_args(ctx, words + args[end:])

    return Command


def parse_columns(texts: list[str] | None) -> dict[str, str] | None:
    """Return ``["anchor=q,positive=a"]`` as a dict. Raises UsageError for a part that is not ``role=column``."""
    mapping: dict[str, str] = {}
    for part in (part for text in texts or () for part in text.split(",")):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not (role and equals and column):
            raise UsageError(f"--columns {part!r}: write role=column, as in anchor=q,positive=a")
        if role in mapping:
            raise UsageError(f"--columns names {role!r} twice")
        mapping[role] = column
    return mapping or None
