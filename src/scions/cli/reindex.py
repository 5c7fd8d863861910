"""`scions reindex`: move a file of vectors to the space of an adapter, or of the base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scions.cli.embed import print_report
from scions.cli.options import BatchSize, ReplaceOutput, Resume, base_option, optional
from scions.store.names import BASE


def reindex(
    vectors: Annotated[Path, typer.Argument(help="The old vectors, .npy, .parquet or .jsonl, with their record.")],
    texts: Annotated[Path, typer.Option(help="The file of their texts, one a row.")],
    adapter: Annotated[str, typer.Option(help="The adapter's name or folder; base: the base alone.")],
    output: Annotated[Path | None, optional("The new file.", "VECTORS.ADAPTER beside it", "--output", "-o")] = None,
    base: Annotated[str | None, base_option("the adapter's own, or the vectors'")] = None,
    column: Annotated[str | None, optional("The column of the text.", "the old one, or by name")] = None,
    batch_size: BatchSize = 64,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show rows, spaces and estimated time; write nothing.")
    ] = False,
    resume: Resume = False,
    force: ReplaceOutput = False,
) -> None:
    """Embed the texts of a vector file again with another adapter; type, normalization, prompt and ids stay.

    The old file stays, unless --output names it and --force is given. For a query-side adapter there is nothing to do:
    its documents lie in the base's space.

    \b
    Examples:
      scions reindex vectors.npy --texts texts.txt --adapter legal --dry-run
      scions reindex vectors.npy --texts texts.txt --adapter legal
    """
    from scions.cli.progress import RowsBar, status
    from scions.cli.render import duration, print_line, print_note
    from scions.vectors.reader import read_outline
    from scions.vectors.record import origin
    from scions.vectors.writer import recover

    recover(vectors)
    old, _, _ = read_outline(vectors)  # before a model is loaded
    if adapter == BASE and base is None:  # that of these vectors, not the default
        base = str(old["base"]) if old.get("base") else None
    with status("loading the model"):
        from scions.vectors.reindex import document_encoder, migrate, plan_migration, rows_per_second, sample_of

        encoder, space = document_encoder(adapter, base)
    name = Path(adapter).name
    plan = plan_migration(vectors, texts, space, adapter=name, output=output, column=column)
    before = f"space {old['space']} ({origin(old)})"
    if not plan.needed:
        query_side = adapter != BASE and space.adapter is None
        why = f": {adapter} is query-side, its documents are the base's" if query_side else ""
        print_line(f"Nothing to do: the {plan.rows} vectors of {vectors} lie in {before} already{why}.")
        return
    print_line(f"{vectors}: {plan.rows} vectors in {before}, to space {space.fingerprint} ({origin(vars(space))})")
    if not plan.same_texts:
        print_note(f"{texts} is not the file that {vectors} was made of, by its record; row numbers are matched")
    if dry_run:
        with status("measuring"):
            speed = rows_per_second(encoder, sample_of(texts, plan.column, plan.rows), batch_size=batch_size)
        print_line(f"It would take about {duration(plan.rows / speed)} ({speed:.0f} rows/s) and go to {plan.output}.")
        print_line("Nothing was written (--dry-run).")
        return
    with RowsBar() as bar:
        report = migrate(encoder, plan, batch_size=batch_size, resume=resume, force=force, on_progress=bar.update)
    print_report(report, f"space {old['space']} before, {space.fingerprint} now")
