"""`scions train`: train one adapter, or several one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scions.cli.exit_codes import WORSE, exit_code, report
from scions.cli.options import AdaptersFolder, base_option, optional, parse_columns
from scions.errors import AdapterError, Interrupted, ScionsError, UsageError
from scions.store import Manifest, check_name, default_root
from scions.store.atomic import check_replaceable

if TYPE_CHECKING:
    from scions.training import TrainResult


def train(
    data: Annotated[
        list[str], typer.Option(help="A file, a folder or a BEIR folder, or: docstrings, docstrings:numpy.")
    ],
    name: Annotated[list[str], typer.Option(help="Name of the adapter; one for each --data.")],
    base: Annotated[str | None, base_option("all-MiniLM-L6-v2")] = None,
    method: Annotated[str, typer.Option(help="houlsby, pfeiffer, parallel, lora or full.")] = "houlsby",
    trainable_share: Annotated[
        str | None, optional("Share of the parameters to train: 3.6% or 0.036.", "3.6% unless --rank")
    ] = None,
    rank: Annotated[int | None, optional("Width of the bottleneck.", "from the share")] = None,
    layers: Annotated[int | None, optional("Adapt only the upper layers, this many.", "all layers")] = None,
    objective: Annotated[
        str | None, optional("contrastive, cosent, deletion or simcse.", "from the data's shape")
    ] = None,
    batch_size: Annotated[int | None, optional("Batch size.", "from the data's size")] = None,
    learning_rate: Annotated[float | None, optional("Peak learning rate.", "from the method")] = None,
    epochs: Annotated[float | None, optional("Training epochs.", "from the data's size")] = None,
    max_length: Annotated[int | None, optional("Maximum tokens per text.", "from the data's texts")] = None,
    seed: Annotated[int, typer.Option(help="Seed of row order, dropout and split.")] = 0,
    general: Annotated[
        str | None, optional("Rows of general text, to measure the cost there.", "drift on built-in pairs")
    ] = None,
    dev: Annotated[str | None, optional("Rows that choose the epoch.", "split off the data")] = None,
    test: Annotated[str | None, optional("Rows for the verdict.", "split off the data")] = None,
    shape: Annotated[
        str | None,
        optional(
            "texts, pairs, triplets, scored, binary, labelled, candidates or retrieval.", "recognized by the columns"
        ),
    ] = None,
    columns: Annotated[
        list[str] | None, optional("Columns by role: anchor=q,positive=a.", "recognized by name")
    ] = None,
    limit: Annotated[int | None, optional("Maximum number of training rows.", "all rows")] = None,
    adapters: AdaptersFolder = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an adapter of that name; publish one that is worse than the base.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show shape, recipe, split, estimated time and memory; train nothing.")
    ] = False,
    compare_full: Annotated[bool, typer.Option("--compare-full", help="Compare with full fine-tuning.")] = False,
    query_side: Annotated[
        bool, typer.Option("--query-side", help="Train queries only: an index of the base's vectors stays valid.")
    ] = False,
    documents: Annotated[
        Path | None,
        optional(
            "With --query-side: file of the base's vectors of a BEIR folder's corpus, in its order.", "computed once"
        ),
    ] = None,
    document_texts: Annotated[
        Path | None, optional("The texts of --documents, row by row.", "the BEIR folder's corpus")
    ] = None,
    preserve: Annotated[
        str | None,
        optional(
            "Preserve general knowledge: distillation, mask, contrast, joined by commas; all or none.",
            "distillation with --general-texts, else none",
        ),
    ] = None,
    general_texts: Annotated[
        str | None,
        optional("General texts for distillation: a file, or docstrings, words, own.", "docstrings, with distillation"),
    ] = None,
    max_general_loss: Annotated[
        float | None, optional("Refuse an adapter that loses more on --general, else of drift.", "no limit")
    ] = None,
    compare_two_sided: Annotated[
        bool, typer.Option("--compare-two-sided", help="With --query-side: compare with an adapter for both sides.")
    ] = False,
) -> None:
    """Train an adapter on your own text and judge it on held-out rows.

    An adapter that is worse than the base, or beyond --max-general-loss, is not published; the exit code is then 3.

    \b
    Examples:
      scions train --data legal.jsonl --name legal
      scions train --data legal.jsonl --name legal --trainable-share 1% --dry-run
      scions train --data legal.jsonl --name legal --data med.csv --name medical
      scions train --data nfcorpus/ --name legal-q --query-side --documents index.npy
    """
    settings = dict(locals())  # the options, by the names that scions.train has for them
    del settings["data"], settings["name"], settings["dry_run"]
    settings |= {"trainable_share": parse_share(trainable_share), "columns": parse_columns(columns)}
    root = _check_names(data, name, adapters)
    if dry_run:
        _print_plans(data, name, settings)
        return
    if not resume:
        for one in name:
            check_replaceable(root / one, force)
    code = _train_all(data, name, settings, root)
    if code:
        raise typer.Exit(code)


def parse_share(text: str | None) -> float | None:
    """Return ``3.6%`` or ``0.036`` as 0.036. Raises UsageError for anything else."""
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


def _check_names(data: list[str], names: list[str], adapters: Path | None) -> Path:
    """Check all names before the first training starts. Return the folder of adapters."""
    if not all(data):
        raise UsageError("--data is empty: name a file or a folder")
    if len(data) != len(names):
        raise UsageError(f"each --data needs its --name: found {len(data)} --data and {len(names)} --name")
    for name in names:
        check_name(name)
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError(f"--name {duplicates[0]!r} is given twice; each adapter needs its own")
    return adapters or default_root()


def _print_plans(data: list[str], names: list[str], settings: dict[str, Any]) -> None:
    from scions.cli.progress import status
    from scions.cli.training_tables import print_plan
    from scions.training import plan

    for source, name in zip(data, names, strict=True):
        with status(f"reading {source}"):
            planned = plan(source, name=name, **settings)
        print_plan(name, planned, dry_run=True)


def _train_all(data: list[str], names: list[str], settings: dict[str, Any], root: Path) -> int:
    """Train one after another; a failure does not stop the next, Ctrl-C does. Return the exit code."""
    from scions.cli.render import print_stage
    from scions.cli.training_tables import Ended, print_result, print_summary

    several = len(names) > 1
    ended: list[Ended] = []
    for source, name in zip(data, names, strict=True):
        if several:
            if settings["resume"] and not settings["force"] and _is_published(root / name):
                print_stage(f"{name}: published already, in {root / name}")
                continue
            print_stage(f"{name}: {source}")
        try:
            result = _train_one(source, name, settings)
        except BaseException as error:
            if several and isinstance(error, ScionsError) and not isinstance(error, Interrupted):
                report(error)
                ended.append(Ended(name, error=error, code=exit_code(error)))
                continue
            if ended:  # show what is finished and what was stopped; the rest has not started
                print_summary([*ended, Ended(name, error=error)])
            raise
        # With --force a worse adapter is published on request: no failure.
        refused = result.verdict.refused and not settings["force"]
        ended.append(Ended(name, result=result, code=WORSE if refused else 0))
        print_result(result)
    if several:
        print_summary(ended)
    failures = [training.code for training in ended if training.error is not None]
    return failures[0] if failures else max((training.code for training in ended), default=0)


def _train_one(source: str, name: str, settings: dict[str, Any]) -> TrainResult:
    from scions.cli.progress import TrainingBar, status
    from scions.cli.render import print_stage
    from scions.cli.training_tables import print_plan

    with status("starting"):
        from scions.training import train as run

    with TrainingBar() as bar:

        def stage(text: str) -> None:
            bar.close()
            print_stage(text)

        return run(
            source,
            name,
            **settings,
            on_stage=stage,
            on_recipe=lambda plan: print_plan(name, plan),
            on_step=bar.update,
        )


def _is_published(folder: Path) -> bool:
    try:
        return Manifest.read(folder).name == folder.name
    except AdapterError:
        return False
