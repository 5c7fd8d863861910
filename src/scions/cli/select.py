"""`scions select`: choose adapters for texts of a new domain."""

from __future__ import annotations

from typing import Annotated

import typer

from scions.cli.options import AdaptersFolder, optional


def select(
    texts: Annotated[str, typer.Option(help="Texts of the new domain, without labels; about 100 are enough.")],
    by: Annotated[
        str, typer.Option(help="cosine: the most similar domains; mixture: the likeliest origins of the texts.")
    ] = "cosine",
    limit: Annotated[int, typer.Option(help="Largest number of adapters to propose.")] = 5,
    base: Annotated[str | None, optional("Only adapters of this base.", "the base most of them have")] = None,
    adapters: AdaptersFolder = None,
) -> None:
    """Rank adapters for texts of a domain without one, and propose a mixture, one adapter or the base.

    \b
    Example:
      scions select --texts new-domain.txt
    """
    from scions.cli.progress import status
    from scions.cli.render import percent, print_line, print_note, print_table

    with status("reading and encoding"):
        from scions.data import read
        from scions.mixing import select as run

        selection = run(read(texts).texts(), by=by, limit=limit, base=base, adapters=adapters)
    weights = {name: f"{weight:.2f}" for name, weight in selection.weights.items()}
    rows = [
        (c.name, f"{c.cosine:.3f}", percent(c.share), f"{c.evidence:+.1f}", weights.get(c.name, ""))
        for c in selection.ranked
    ]
    headings = ("adapter", "cosine", "texts in its domain", "nats a text", "proposed weight")
    print_table(f"{selection.texts} texts of {texts}", headings, rows, numbers=range(1, 5))
    for note in selection.notes:
        print_note(note)
    proposal = ", ".join(f"{name} {weight}" for name, weight in weights.items()) or "the bare base"
    print_line(f"proposed: {proposal} ({selection.reason})")
    if len(weights) > 1:
        shares = ",".join(weights.values())
        print_line(f"scions mix {' '.join(weights)} --strategy weighted --weights {shares} --name NAME")
