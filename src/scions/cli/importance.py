"""`scions importance`: which attention heads of a base hold its general knowledge, as a heat map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text


def importance(
    texts: Annotated[Path, typer.Argument(help="Texts of your domain: any file that train reads.", show_default=False)],
    base: Annotated[
        str | None, typer.Option(help="The base: a folder or an id on the Hub.", show_default="all-MiniLM-L6-v2")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A picture: .png, .svg or .pdf.", show_default="none")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draw of texts, and dropout.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the picture.")] = False,
) -> None:
    """Measure how much each attention head matters for what the base knows in general.

    No general data is needed: it is the sensitivity of two dropout passes over your texts (Ke et al. 2022).
    train --preserve mask lets important heads move less.

    \b
    Example:
      scions importance legal.jsonl -o heads.png
    """
    from scions.cli.progress import RowsBar, status
    from scions.cli.render import print_line, print_table, table
    from scions.publishing.plots import check_picture, draw_heads

    if output is not None:
        check_picture(output, force)
    with status("loading the base"):
        from scions.data import read
        from scions.store import load_base, write_file
        from scions.training.live_encoder import prompt_of
        from scions.training.preservation import measure_importance

        rows = read(str(texts))
        model = load_base(base)
    with RowsBar("measuring") as bar:
        asked = [prompt_of(model) + text for text in rows.texts()]
        found = measure_importance(model, asked, seed=seed, on_batch=bar.update)
    layers = list(found.heads.values())
    headings = ("layer", *(str(head) for head in range(len(layers[0]))))
    body = [(str(layer), *(_cell(float(value)) for value in values)) for layer, values in enumerate(layers)]
    title = "importance of heads for general knowledge, 0 to 1"
    print_table(table(title, headings, body, numbers=range(len(headings))))
    if output is not None:
        write_file(output, draw_heads([values.tolist() for values in layers], output.suffix))
        print_line(f"Drawn in {output}")


def _cell(value: float) -> Text:
    """Lighter where it is more important; in a file or a pipe the number alone."""
    level = round(40 + 200 * value)
    return Text(f"{value:.2f}", style=f"{'black' if value > 0.4 else 'white'} on rgb({level},{level},{level // 2})")
