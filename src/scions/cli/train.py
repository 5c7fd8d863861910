"""`scions train`: one adapter from a user's own file, or several one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scions.cli.options import AdaptersFolder, parse_columns
from scions.errors import AdapterError, Interrupted, ScionsError, UsageError

if TYPE_CHECKING:
    from scions.cli.progress import TrainingBar


def train(
    data: Annotated[
        list[str],
        typer.Option(help="A file, a folder or a BEIR folder, or: docstrings, docstrings:numpy.", show_default=False),
    ],
    name: Annotated[list[str], typer.Option(help="The adapter's name; one for each --data.", show_default=False)],
    base: Annotated[
        str | None, typer.Option(help="The base: a folder or an id on the Hub.", show_default="all-MiniLM-L6-v2")
    ] = None,
    method: Annotated[str, typer.Option(help="houlsby, pfeiffer, parallel, lora or full.")] = "houlsby",
    trainable_share: Annotated[
        str | None,
        typer.Option(
            help="How much is trained, every tensor counted: 3.6% or 0.036.", show_default="3.6% unless --rank"
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Width of the bottleneck.", show_default="from the share")] = None,
    layers: Annotated[
        int | None, typer.Option(help="Adapt only so many upper layers.", show_default="all layers")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="contrastive, cosent, deletion or simcse.", show_default="from the data's shape")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.", show_default="from the data's size")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate.", show_default="from the method")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Times through.", show_default="from the data's size")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens read of a text.", show_default="from the data's texts")
    ] = None,
    seed: Annotated[int, typer.Option(help="Order of rows, dropout and split.")] = 0,
    general: Annotated[
        str | None,
        typer.Option(help="Rows outside the domain that must not suffer.", show_default="drift on built-in pairs"),
    ] = None,
    dev: Annotated[
        str | None, typer.Option(help="Rows that choose the epoch.", show_default="split off the data")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Rows for the verdict.", show_default="split off the data")] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="texts, pairs, triplets, scored, binary, labelled, candidates or retrieval.",
            show_default="recognised by the columns",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="Which column is which: anchor=q,positive=a.", show_default="recognised by name"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Train on so many rows.", show_default="all rows")] = None,
    adapters: AdaptersFolder = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an adapter of that name; keep one that is worse than the base.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show shape, recipe, split, estimated time and memory; train nothing.")
    ] = False,
    compare_full: Annotated[
        bool, typer.Option("--compare-full", help="Fine-tune the whole base beside it, for comparison.")
    ] = False,
    query_side: Annotated[
        bool, typer.Option("--query-side", help="Train queries alone: an index of the base's vectors serves on.")
    ] = False,
    documents: Annotated[
        Path | None,
        typer.Option(
            help="With --query-side: the base's vectors of a BEIR folder's corpus, in its order.",
            show_default="computed once",
        ),
    ] = None,
    document_texts: Annotated[
        Path | None,
        typer.Option(help="The texts of --documents, row by row.", show_default="the BEIR folder's corpus"),
    ] = None,
    preserve: Annotated[
        str | None,
        typer.Option(
            help="How general knowledge is kept: distillation, mask, contrast, joined by commas, all or none.",
            show_default="distillation with --general-texts, else none",
        ),
    ] = None,
    general_texts: Annotated[
        str | None,
        typer.Option(
            help="Texts that distillation holds on to: a file, or docstrings, words, own.",
            show_default="docstrings, where distillation is asked for",
        ),
    ] = None,
    max_general_loss: Annotated[
        float | None,
        typer.Option(help="Refuse what loses more points on --general, or of drift.", show_default="no limit"),
    ] = None,
    compare_two_sided: Annotated[
        bool,
        typer.Option("--compare-two-sided", help="With --query-side: train both sides too, to see what that gains."),
    ] = False,
) -> None:
    """Train an adapter on your own text, and judge it on rows it has not seen.

    Ends in a verdict: better, no measurable difference, or worse (then nothing is published and the exit code is 3, as
    beyond --max-general-loss).

    \b
    Examples:
      scions train --data legal.jsonl --name legal
      scions train --data legal.jsonl --name legal --trainable-share 1% --dry-run
      scions train --data legal.jsonl --name legal --data med.csv --name medical
      scions train --data nfcorpus/ --name legal-q --query-side --documents index.npy
    """
    if not all(data):
        raise UsageError("--data is empty: name a file or a folder")
    if len(data) != len(name):
        raise UsageError(f"each --data needs its --name: found {len(data)} --data and {len(name)} --name")
    settings: dict[str, Any] = {
        "base": base,
        "method": method,
        "trainable_share": parse_share(trainable_share),
        "rank": rank,
        "layers": layers,
        "objective": objective,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "max_length": max_length,
        "seed": seed,
        "general": general,
        "dev": dev,
        "test": test,
        "shape": shape,
        "columns": parse_columns(columns),
        "limit": limit,
        "adapters": adapters,
        "resume": resume,
        "force": force,
        "compare_full": compare_full,
        "query_side": query_side,
        "documents": documents,
        "document_texts": document_texts,
        "compare_two_sided": compare_two_sided,
        "preserve": preserve,
        "general_texts": general_texts,
        "max_general_loss": max_general_loss,
    }
    root = _check_names(name, adapters)
    if dry_run:
        _show_plans(data, name, settings)
        return
    if not resume:
        _refuse_taken(name, root, force)
    code = _train_all(data, name, settings, root)
    if code:
        raise typer.Exit(code)


def parse_share(text: str | None) -> float | None:
    """``3.6%`` or ``0.036`` as 0.036. Raises UsageError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    if match is None:
        raise UsageError(f"--trainable-share {text!r}: write 3.6% or 0.036")
    share = float(match[1] + ("e-2" if match[2] else ""))
    if not 0 < share < 1:
        meant = f"; did you mean {match[1]}%?" if not match[2] and 1 <= share < 100 else ""
        raise UsageError(f"--trainable-share {text!r}: must lie between 0 and 100 %{meant}")
    return share


def _check_names(names: list[str], adapters: Path | None) -> Path:
    """All names at once: the third's mistake should not show after two trainings."""
    from scions.store import check_name, default_root

    for name in names:
        check_name(name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"--name {twice[0]!r} is given twice; each adapter needs its own")
    return adapters or default_root()


def _refuse_taken(names: list[str], root: Path, force: bool) -> None:
    from scions.store.atomic import check_replaceable

    for name in names:
        check_replaceable(root / name, force)


def _show_plans(data: list[str], names: list[str], settings: dict[str, Any]) -> None:
    from scions.cli.progress import status
    from scions.cli.training_tables import print_plan
    from scions.training import plan

    for source, name in zip(data, names, strict=True):
        with status(f"reading {source}"):
            made = plan(source, name=name, **settings)
        print_plan(name, made, dry_run=True)


def _train_all(data: list[str], names: list[str], settings: dict[str, Any], root: Path) -> int:
    from scions.cli.exit_codes import exit_code, report
    from scions.cli.progress import TrainingBar
    from scions.cli.render import print_stage
    from scions.cli.training_tables import Ended, print_result, print_summary

    several = len(names) > 1
    ended: list[Ended] = []
    for source, name in zip(data, names, strict=True):
        if several:
            if settings["resume"] and not settings["force"] and _published(root / name):
                print_stage(f"{name}: published already, in {root / name}")
                continue
            print_stage(f"{name}: {source}")
        try:
            with TrainingBar() as bar:
                result = _train_one(source, name, settings, bar)
        except BaseException as error:
            if isinstance(error, Interrupted) or not isinstance(error, ScionsError):
                if ended:  # what is finished is told, and what was stopped; the rest was not begun
                    print_summary([*ended, Ended(name, error=error)])
                raise
            if not several:
                raise
            report(error)
            ended.append(Ended(name, error=error, code=exit_code(error)))
            continue
        # With --force a worse one was asked for, and stands where it belongs.
        refused = result.verdict.refused and not settings["force"]
        ended.append(Ended(name, result=result, code=3 if refused else 0))
        print_result(result)
    if several:
        print_summary(ended)
    failures = [one.code for one in ended if one.error is not None]
    return failures[0] if failures else max((one.code for one in ended), default=0)


def _train_one(source: str, name: str, settings: dict[str, Any], bar: TrainingBar) -> Any:
    from scions.cli.progress import status
    from scions.cli.render import print_stage
    from scions.cli.training_tables import print_plan

    with status("starting"):
        from scions.training import train as run

    def stage(text: str) -> None:
        bar.close()
        print_stage(text)

    return run(
        source,
        name,
        **settings,
        on_stage=stage,
        on_recipe=lambda made: print_plan(name, made),
        on_step=bar.update,
    )


def _published(folder: Path) -> bool:
    from scions.store import Manifest

    try:
        return Manifest.read(folder).name == folder.name
    except AdapterError:
        return False
