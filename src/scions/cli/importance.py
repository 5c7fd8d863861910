"""`scions importance`: importance of each attention head of a base for general knowledge, as a heat map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from scions.cli.options import base_option, optional


def importance(
    texts: Annotated[Path, typer.Argument(help="Texts of your domain, as train reads them.")],
    base: Annotated[str | None, base_option("all-MiniLM-L6-v2")] = None,
    output: Annotated[Path | None, optional("Picture to write: .png, .svg or .pdf.", "none", "--output", "-o")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn texts and of dropout.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Measure how much each attention head matters for the base's general knowledge.

    Needs no general data: the measure is the sensitivity of two dropout passes over your texts (Ke et al. 2022).
    Training with --preserve mask changes important heads less.

    \b
    Example:
      scions importance legal.jsonl -o heads.png
    """
    from scions.cli.progress import RowsBar, status
    from scions.cli.render import print_line, print_table
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
        prompted = [prompt_of(model) + text for text in rows.texts()]
        measured = measure_importance(model, prompted, seed=seed, on_batch=bar.update)
    layers = list(measured.heads.values())
    headings = ("layer", *(str(head) for head in range(len(layers[0]))))
    body = [(str(layer), *(_cell(float(value)) for value in values)) for layer, values in enumerate(layers)]
    title = "importance of heads for general knowledge, 0 to 1"
    print_table(title, headings, body, numbers=range(len(headings)))
    if output is not None:
        write_file(output, draw_heads([values.tolist() for values in layers], output.suffix))
        print_line(f"Drawn in {output}")


def _cell(value: float) -> Text:
    """Return the value on a background that is lighter where it is larger."""
    level = round(40 + 200 * value)
    return Text(f"{value:.2f}", style=f"{'black' if value > 0.4 else 'white'} on rgb({level},{level},{level // 2})")
