"""`scions mix`: one adapter of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scions.cli.options import AdaptersFolder, DataShape
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.mixing import Mixture
    from scions.mixing.holdout import HoldoutScores

NOTHING_HELPS = 3


def mix(
    adapters: Annotated[list[str], typer.Argument(help="Two adapters or more, by name or folder.", show_default=False)],
    name: Annotated[str, typer.Option(help="The mixture's name.", show_default=False)],
    strategy: Annotated[str, typer.Option(help="uniform, weighted, similarity, clusters, greedy or ties.")] = "uniform",
    weights: Annotated[
        str | None, typer.Option(help="For weighted: one an adapter, as in 0.7,0.3.", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows that choose members or weights, and judge where there is no --test.", show_default=False
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="Rows that judge, one file for each --data.", show_default="held out of --data"),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="For greedy: the adapter to begin with.", show_default="the closest pair")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="For ties: share of each adapter's changes that stays.", show_default="0.2")
    ] = None,
    shape: DataShape = None,
    seed: Annotated[int, typer.Option(help="Of splits.")] = 0,
    base: Annotated[
        str | None, typer.Option(help="The base: a folder or an id on the Hub.", show_default="the adapters' own")
    ] = None,
    folder: AdaptersFolder = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter of that name.")] = False,
) -> None:
    """Average adapters of one base into a new one; says first what to expect, and then what it measured.

    Exit code 3 where greedy mixing finds that no other adapter helps the target; then nothing is published.

    \b
    Examples:
      scions mix medical pharma --name biomed
      scions mix legal contracts patents --name law --strategy greedy --data dev.jsonl --test test.jsonl
    """
    from scions.cli.progress import status
    from scions.cli.render import print_line, print_stage

    with status("starting"):
        from scions.mixing import mix as run

    done = run(
        adapters,
        name,
        strategy=strategy,
        weights=parse_weights(weights),
        data=data or (),
        test=test or (),
        target=target,
        density=density,
        shape=shape,
        seed=seed,
        base=base,
        adapters=folder,
        force=force,
        on_expectation=lambda expected: print_stage(f"expected: {expected.sentence}"),
        on_stage=print_stage,
    )
    _print(done)
    if done.path is None:
        raise typer.Exit(NOTHING_HELPS)
    print_line(f"{done.path}: {', '.join(f'{member} {weight:.2f}' for member, weight in done.weights.items())}")


def parse_weights(text: str | None) -> list[float] | None:
    """``0.7,0.3`` as numbers. Raises UsageError for anything else."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r}: write one number an adapter, as in 0.7,0.3") from None


def print_measured(measured: HoldoutScores, result: str) -> None:
    """Base, members and result on one table of rows, with the difference to the base and the best member."""
    from scions.cli.render import figure, print_line, print_table, signed, table

    rows = [("base", figure(measured.base), "")]
    rows += [(member, figure(score), "") for member, score in measured.members.items()]
    rows.append((result, figure(measured.result), signed(measured.difference)))
    headings = ("encoder", measured.metric, "difference to the base")
    print_table(table(f"{measured.source}: 95 % intervals", headings, rows, numbers=(1, 2)))
    if measured.to_best is not None:
        best = max(measured.members, key=lambda member: measured.members[member].value)
        print_line(f"measured: {result} against {best}, its best member here: {signed(measured.to_best)}")


def _print(done: Mixture) -> None:
    from scions.cli.render import print_line, print_table, table

    if done.search is not None:
        rows = [
            (
                ", ".join(t.members),
                f"{t.fraction:.2f}" if len(t.members) > 1 else "-",
                f"{t.score:.2f}",
                "kept" if t.kept else "",
            )
            for t in done.search.trials
        ]
        print_table(
            table("Tried on the development rows", ("members", "signs differ", "score", ""), rows, numbers=(1, 2))
        )
    if done.path is None:
        print_line(
            f"No mixture helps {next(iter(done.weights))}: every addition costs it score. Nothing was published."
        )
        return
    for measured in done.measured:
        print_measured(measured, done.name)
    if not done.measured:
        print_line("nothing was measured: give --data FILE to see what the mixture is worth")
