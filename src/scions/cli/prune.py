"""`scions prune`: make an adapter smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scions.cli.options import AdaptersFolder, DataShape, base_option, optional
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.mixing import Pruning


def prune(
    adapter: Annotated[str, typer.Argument(help="The adapter, by name or folder.")],
    name: Annotated[str | None, optional("Name of the pruned adapter.", "ADAPTER-pruned")] = None,
    sparsity: Annotated[float, typer.Option(help="Share to prune: 0.9 leaves a tenth.")] = 0.9,
    strategy: Annotated[str, typer.Option(help="magnitude, sign-aware, neurons or layers.")] = "magnitude",
    against: Annotated[list[str] | None, typer.Option(help="For sign-aware: an adapter whose signs count.")] = None,
    data: Annotated[str | None, typer.Option(help="Held-out rows to score before and after.")] = None,
    curve: Annotated[Path | None, typer.Option(help="Draw score against sparsity on --data here, as PNG.")] = None,
    shape: DataShape = None,
    base: Annotated[str | None, base_option("the adapter's own")] = None,
    adapters: AdaptersFolder = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter of that name.")] = False,
) -> None:
    """Prune values of an adapter (smaller on disk), or units and layers (smaller and faster).

    Pruned values return to the first weights that all adapters of the base share, which take no room on disk.

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

    pruning = run(
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
    _print(pruning)
    if curve is not None and pruning.base is not None:
        from scions.cli.render import print_line
        from scions.publishing.plots import draw_curve
        from scions.store import write_file

        shares, scores = [point.sparsity for point in pruning.curve], [point.score for point in pruning.curve]
        picture = draw_curve(shares, scores, pruning.base, pruning.metric or "", f"{Path(adapter).name}, {strategy}")
        print_line(f"curve: {write_file(curve, picture)}")


def _print(pruning: Pruning) -> None:
    from scions.cli.mix import print_measured
    from scions.cli.render import figure, percent, print_line, print_table, size

    if pruning.measured is not None:
        print_measured(pruning.measured, pruning.name)
    if pruning.curve:
        rows = [(percent(point.sparsity), figure(point.score), size(point.bytes)) for point in pruning.curve]
        print_table(f"{pruning.metric} by sparsity", ("sparsity", "score", "size"), rows, numbers=(0, 1, 2))
    left = [f"{percent(pruning.sparsity)} of the matrices' values are pruned"]
    left += [f"rank {pruning.rank}"] if pruning.rank is not None else []
    left += [f"upper {pruning.layers} layers"] if pruning.layers is not None else []
    times = pruning.bytes_after / pruning.bytes_before
    print_line(
        f"{pruning.path}: {', '.join(left)}; {size(pruning.bytes_before)} -> {size(pruning.bytes_after)} ({times:.2f}x)"
    )
