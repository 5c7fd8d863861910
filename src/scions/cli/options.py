"""Options that several commands have, so that they are called and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scions.errors import UsageError

if TYPE_CHECKING:
    pass


AdaptersFolder = Annotated[
    Path | None,
    typer.Option(help="The folder that holds the adapters.", show_default="$SCIONS_ADAPTERS, or ./adapters"),
]
DataShape = Annotated[
    str | None, typer.Option("--shape", help="The shape of the data.", show_default="recognised by the columns")
]


def parse_columns(given: list[str] | None) -> dict[str, str] | None:
    """``["anchor=q,positive=a"]`` as a mapping. Raises UsageError for a part that is no ``name=column``."""
    mapping: dict[str, str] = {}
    for part in (part for text in given or () for part in text.split(",")):
        canonical, equals, column = (piece.strip() for piece in part.partition("="))
        if not (canonical and equals and column):
            raise UsageError(f"--columns {part!r}: write name=column, as in anchor=q,positive=a")
        if canonical in mapping:
            raise UsageError(f"--columns names {canonical!r} twice")
        mapping[canonical] = column
    return mapping or None
