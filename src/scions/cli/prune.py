"""`scions prune`: a smaller adapter of an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scions.cli.options import AdaptersFolder, DataShape
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.mixing import Pruning


def prune(
    adapter: Annotated[str, typer.Argument(help="The adapter, by name or folder.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="The pruned adapter's name.", show_default="ADAPTER-pruned")] = None,
    sparsity: Annotated[float, typer.Option(help="Share that is taken out: 0.9 leaves a tenth.")] = 0.9,
    strategy: Annotated[str, typer.Option(help="magnitude, sign-aware, neurons or layers.")] = "magnitude",
    against: Annotated[
        list[str] | None,
        typer.Option(help="For sign-aware: an adapter whose signs count.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Held-out rows, to measure before and after.", show_default=False)
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Draw score against sparsity on --data here, as PNG.", show_default=False)
    ] = None,
    shape: DataShape = None,
    base: Annotated[
        str | None, typer.Option(help="The base: a folder or an id on the Hub.", show_default="the adapter's own")
    ] = None,
    adapters: AdaptersFolder = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter of that name.")] = False,
) -> None:
    """Take out of an adapter what matters least: values (smaller on disk), or units and layers (faster too).

    Values that are taken out go back to what every adapter of the base starts with, which takes no room on disk.

    \b
    Examples:
      scions prune legal --sparsity 0.9 --data legal-test.jsonl
      scions prune legal --strategy neurons --sparsity 0.5 --name legal-slim --data legal-test.jsonl --curve curve.png
    """
    from scions.cli.progress import status
    from scions.cli.render import print_stage

    if curve is not None and curve.suffix.lower() != ".png":
        raise UsageError(f"--curve {curve}: a curve is a PNG; name it something.png")
    with status("starting"):
        from scions.mixing import prune as run

    done = run(
        adapter,
        name or f"{Path(adapter).name}-pruned",
        sparsity=sparsity,
        strategy=strategy,
        against=against or (),
        data=data,
        curve=curve is not None,
        shape=shape,
        base=base,
        adapters=adapters,
        force=force,
        on_stage=print_stage,
    )
    _print(done)
    if curve is not None and done.base is not None:
        from scions.cli.render import print_line
        from scions.publishing.plots import draw_curve
        from scions.store import write_file

        shares, scores = [point.sparsity for point in done.curve], [point.score for point in done.curve]
        picture = draw_curve(shares, scores, done.base, done.metric or "", f"{Path(adapter).name}, {strategy}")
        print_line(f"curve: {write_file(curve, picture)}")


def _print(done: Pruning) -> None:
    from scions.cli.mix import print_measured
    from scions.cli.render import figure, percent, print_line, print_table, size, table

    if done.measured is not None:
        print_measured(done.measured, done.name)
    if done.curve:
        rows = [(percent(point.sparsity), figure(point.score), size(point.bytes)) for point in done.curve]
        print_table(table(f"{done.metric} by sparsity", ("sparsity", "score", "size"), rows, numbers=(0, 1, 2)))
    left = [f"{percent(done.sparsity)} of the matrices' values are gone"]
    left += [f"rank {done.rank}"] if done.rank is not None else []
    left += [f"upper {done.layers} layers"] if done.layers is not None else []
    times = done.bytes_after / done.bytes_before
    print_line(f"{done.path}: {', '.join(left)}; {size(done.bytes_before)} -> {size(done.bytes_after)} ({times:.2f}x)")
