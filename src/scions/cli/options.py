"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from scions.errors import UsageError

AdaptersFolder = Annotated[
    Path | None,
    typer.Option("--adapters", help="The folder of adapters.", show_default="$SCIONS_ADAPTERS, or ./adapters"),
]
DataShape = Annotated[
    str | None, typer.Option("--shape", help="The shape of the data.", show_default="recognised by the columns")
]


class OutputRenamed(TyperCommand):
    """A command that still accepts ``--output``, the name of ``--adapters`` before version 0.2, and warns."""

    renamed: ClassVar[dict[str, str]] = {"--output": "--adapters"}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = []
        for word in args[:end]:
            flag, equals, value = word.partition("=")
            if flag in self.renamed:
                typer.secho(f"Warning: {flag} is deprecated; use {self.renamed[flag]}", fg="yellow", err=True)
                word = self.renamed[flag] + equals + value
            words.append(word)
        return super().parse_args(ctx, words + args[end:])


class MixRenamed(OutputRenamed):
    """``scions mix``, which also accepts ``--kept`` for ``--density``."""

    renamed: ClassVar[dict[str, str]] = {**OutputRenamed.renamed, "--kept": "--density"}


class SelectRenamed(OutputRenamed):
    """``scions select``, which also accepts ``--most`` for ``--limit``."""

    renamed: ClassVar[dict[str, str]] = {**OutputRenamed.renamed, "--most": "--limit"}


def parse_columns(given: list[str] | None) -> dict[str, str] | None:
    """``["anchor=q,positive=a"]`` as a mapping. Raises UsageError for a part that is not ``role=column``."""
    mapping: dict[str, str] = {}
    for part in (part for text in given or () for part in text.split(",")):
        canonical, equals, column = (piece.strip() for piece in part.partition("="))
        if not (canonical and equals and column):
            raise UsageError(f"--columns {part!r}: write role=column, as in anchor=q,positive=a")
        if canonical in mapping:
            raise UsageError(f"--columns names {canonical!r} twice")
        mapping[canonical] = column
    return mapping or None
