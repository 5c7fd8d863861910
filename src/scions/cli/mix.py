"""`scions mix`: mix several adapters into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scions.cli.options import AdaptersFolder, DataShape, base_option, optional
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.mixing import Mixture
    from scions.mixing.holdout import HoldoutScores

NOTHING_HELPS = 3


def mix(
    adapters: Annotated[list[str], typer.Argument(help="Two adapters or more, by name or folder.")],
    name: Annotated[str, typer.Option(help="Name of the mixture.")],
    strategy: Annotated[str, typer.Option(help="uniform, weighted, similarity, clusters, greedy or ties.")] = "uniform",
    weights: Annotated[str | None, typer.Option(help="For weighted: one per adapter, as in 0.7,0.3.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Rows to choose members or weights by, and to score on without --test.")
    ] = None,
    test: Annotated[
        list[str] | None, optional("Rows to score on, one file for each --data.", "held out of --data")
    ] = None,
    target: Annotated[str | None, optional("For greedy: the adapter to start from.", "the closest pair")] = None,
    density: Annotated[float | None, optional("For ties: share of each adapter's changes to keep.", "0.2")] = None,
    shape: DataShape = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    base: Annotated[str | None, base_option("the adapters' own")] = None,
    folder: AdaptersFolder = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter of that name.")] = False,
) -> None:
    """Average adapters of one base into a new one. Predicts the result by their signs, then scores it.

    Exits with code 3 and publishes nothing where greedy mixing finds no adapter that helps the target.

    \b
    Examples:
      scions mix medical pharma --name biomed
      scions mix legal contracts patents --name law --strategy greedy --data dev.jsonl --test test.jsonl
    """
    from scions.cli.progress import status
    from scions.cli.render import print_line, print_stage

    with status("starting"):
        from scions.mixing import mix as run

    mixture = run(
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
    _print(mixture)
    if mixture.path is None:
        raise typer.Exit(NOTHING_HELPS)
    print_line(f"{mixture.path}: {', '.join(f'{member} {weight:.2f}' for member, weight in mixture.weights.items())}")


def parse_weights(text: str | None) -> list[float] | None:
    """Return ``0.7,0.3`` as numbers. Raises UsageError for anything else."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r}: write one number per adapter, as in 0.7,0.3") from None


def print_measured(measured: HoldoutScores, result: str) -> None:
    """Print the scores of base, members and result, with differences to the base and the best member."""
    from scions.cli.render import figure, print_line, print_table, signed

    rows = [("base", figure(measured.base), "")]
    rows += [(member, figure(score), "") for member, score in measured.members.items()]
    rows.append((result, figure(measured.result), signed(measured.difference)))
    headings = ("encoder", measured.metric, "difference to the base")
    print_table(f"{measured.source}: 95 % intervals", headings, rows, numbers=(1, 2))
    if measured.to_best is not None:
        best = max(measured.members, key=lambda member: measured.members[member].value)
        print_line(f"measured: {result} against {best}, its best member here: {signed(measured.to_best)}")


def _print(mixture: Mixture) -> None:
    from scions.cli.render import print_line, print_table

    if mixture.search is not None:
        rows = [
            (
                ", ".join(t.members),
                f"{t.fraction:.2f}" if len(t.members) > 1 else "-",
                f"{t.score:.2f}",
                "kept" if t.kept else "",
            )
            for t in mixture.search.trials
        ]
        print_table(
            "Sets tried on the development rows", ("members", "signs differ", "score", ""), rows, numbers=(1, 2)
        )
    if mixture.path is None:
        print_line(
            f"No mixture helps {next(iter(mixture.weights))}: every addition costs it score. Nothing was published."
        )
        return
    for measured in mixture.measured:
        print_measured(measured, mixture.name)
    if not mixture.measured:
        print_line("nothing was measured: give --data FILE to score the mixture")
