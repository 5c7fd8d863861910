"""Options that several commands have, so that they are called and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AdaptersFolder = Annotated[
    Path | None,
    typer.Option(help="The folder that holds the adapters.", show_default="$SCIONS_ADAPTERS, or ./adapters"),
]
DataShape = Annotated[
    str | None, typer.Option("--shape", help="The shape of the data.", show_default="recognised by the columns")
]
