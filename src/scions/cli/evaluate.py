"""`scions evaluate`: score encoders side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scions.cli.options import AdaptersFolder, BatchSize, DataShape, base_option, optional, parse_columns
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.evaluation.side_by_side import SideBySide


def evaluate(
    encoders: Annotated[
        list[str] | None, typer.Argument(help="Adapters by name or folder; SentenceTransformers by folder or id.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Held-out rows: a file, a folder, a BEIR folder or docstrings.")
    ] = None,
    part: Annotated[str | None, optional("Part of a folder to score: train, dev or test.", "test")] = None,
    sts: Annotated[Path | None, typer.Option(help="Folder of the seven general similarity tasks.")] = None,
    few_shot: Annotated[str | None, typer.Option(help="Labeled training rows, for few-shot accuracy.")] = None,
    base: Annotated[str | None, base_option("the adapters' own")] = None,
    no_base: Annotated[bool, typer.Option("--no-base", help="Leave the base out.")] = False,
    shape: DataShape = None,
    columns: Annotated[
        list[str] | None, optional("Which column is which: anchor=q,positive=a.", "recognized by name")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Vectors of the corpus, in its order, with their record.")
    ] = None,
    batch_size: BatchSize = 64,
    adapters: AdaptersFolder = None,
    output_json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
) -> None:
    """Score encoders on the same rows, with 95 % intervals and the paired difference to the base.

    The metrics follow from the data's shape: nDCG, MRR, MAP and recall, Spearman, average precision, v-measure.

    \b
    Examples:
      scions evaluate legal --data legal-test.jsonl
      scions evaluate legal medical all-mpnet-base-v2 --data nfcorpus/
      scions evaluate legal --sts sts/ --output-json figures.json
      scions evaluate legal-q --data nfcorpus/ --vectors index.npy
    """
    from scions.cli.progress import status
    from scions.evaluation.side_by_side import evaluate as run
    from scions.store import write_file
    from scions.store.names import BASE

    if output_json is not None and output_json.is_dir():
        raise UsageError(f"--output-json {output_json}: is a folder; name a file")
    names = [name for name in encoders or [] if name != BASE]
    if not no_base or BASE in (encoders or []):
        names.insert(0, BASE)
    if not names:
        raise UsageError("nothing to score: name an adapter or a model, or leave out --no-base")
    with status("starting") as show:
        result = run(
            names,
            data,
            part=part,
            sts=sts,
            few_shot=few_shot,
            base=base,
            shape=shape,
            columns=parse_columns(columns),
            vectors=vectors,
            adapters=adapters,
            batch_size=batch_size,
            on_stage=show,
        )
        figures = json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n" if output_json is not None else ""
    _print(result)
    if output_json is not None:
        write_file(output_json, figures)


def _print(result: SideBySide) -> None:
    from scions.cli.render import figure, print_note, print_table, signed
    from scions.evaluation import STS_TASKS

    rows = result.reference.rows
    gain = f"difference to {'the base' if result.reference.is_base else result.reference.name}"
    if result.table is not None and rows is not None:
        others = [name for name in rows.evaluation.scores if name != rows.metric]
        cells = []
        for encoder in result:
            scores = encoder.rows.evaluation.scores if encoder.rows is not None else {}
            rest = [figure(scores.get(name)) for name in others]
            cells.append((encoder.label, figure(encoder.score), signed(encoder.difference, none=""), *rest))
        title = f"{result.table.source}: {rows.evaluation.n} units of shape {result.table.shape.value}, 95 % intervals"
        headings = ("encoder", rows.metric, gain, *others)
        print_table(title, headings, cells, numbers=range(1, len(headings)))
    for note in result.notes:
        print_note(note)
    if result.sts is not None:
        cells = []
        for encoder in result:
            mean = encoder.sts["STS7"]
            tasks = [figure(encoder.sts[name].evaluation.value) for name in STS_TASKS]
            cells.append(
                (encoder.label, *tasks, figure(mean.interval()), signed(encoder.difference_on("STS7"), none=""))
            )
        headings = ("encoder", *STS_TASKS, "STS7", gain)
        print_table("General similarity tasks, Spearman x100", headings, cells, numbers=range(1, len(headings)))
