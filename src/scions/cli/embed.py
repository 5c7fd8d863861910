"""`scions embed`: embed a file of texts into a file of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scions.cli.options import BatchSize, ReplaceOutput, Resume, base_option, optional
from scions.errors import UsageError
from scions.store import Manifest
from scions.store.names import BASE

if TYPE_CHECKING:
    from scions.vectors.embed import EmbedReport


def embed(
    texts: Annotated[Path, typer.Argument(help="txt, jsonl, csv, tsv or parquet, each also .gz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file of vectors: .npy, .parquet or .jsonl.")],
    adapter: Annotated[
        str | None,
        optional(
            "An adapter's name or folder, any SentenceTransformer, or auto: chosen by the texts.", "the base alone"
        ),
    ] = None,
    base: Annotated[str | None, base_option("the adapter's own")] = None,
    column: Annotated[str | None, optional("The column of the text.", "recognized by name")] = None,
    prompt: Annotated[
        str | None, optional("Name of one of the model's prompts: query, document.", "the model's default")
    ] = None,
    queries: Annotated[
        bool, typer.Option("--queries", help="The texts are queries; needed for a query-side adapter.")
    ] = False,
    batch_size: BatchSize = 64,
    dtype: Annotated[str, typer.Option(help="float32, or float16 for half the size.")] = "float32",
    normalize: Annotated[bool, typer.Option("--normalize/--no-normalize", help="Vectors of length 1.")] = True,
    resume: Resume = False,
    force: ReplaceOutput = False,
) -> None:
    """Write one vector for each row of a file, of any size.

    The record OUTPUT.json beside the vectors names their space: base and adapter. Parquet holds it in its metadata too.

    \b
    Example:
      scions embed --adapter legal texts.txt -o vectors.npy
    """
    from scions.cli.progress import RowsBar, status
    from scions.cli.render import print_note
    from scions.vectors.embed import embed_file
    from scions.vectors.writer import check_output

    check_output(output, texts, dtype)  # before a model is loaded
    of_queries = queries or prompt == "query"
    if adapter == "auto-rows":
        raise UsageError("auto-rows: the vectors of a file lie in one space; give --adapter auto")
    if adapter == "auto":
        from scions.vectors.choose_adapter import choose_adapter

        with status("choosing the adapter"):
            choice = choose_adapter(texts, output, column=column, base=base, queries=of_queries, resume=resume)
        adapter, base = choice.adapter, choice.base
        print_note(choice.reason)
    with status("loading the model"):
        from scions.encoder.base_info import space_of
        from scions.encoder.loading import adapter_folder, load_encoder

        folder = None if adapter in (None, BASE) else adapter_folder(str(adapter))[0]
        if folder is not None and not of_queries:
            _refuse_documents(str(adapter), folder)
        encoder = load_encoder(adapter, base=base)
        if queries and prompt is None and "query" in (encoder.prompts or {}):
            prompt = "query"
        space = space_of(encoder, folder)
    with RowsBar() as bar:
        report = embed_file(
            encoder,
            texts,
            output,
            space=space,
            column=column,
            prompt=prompt,
            batch_size=batch_size,
            normalize=normalize,
            dtype=dtype,
            resume=resume,
            force=force,
            on_progress=bar.update,
        )
    print_report(report, f"space {report.space.fingerprint}")


def print_report(report: EmbedReport, space: str) -> None:
    """Print what was written, and into which space."""
    from scions.cli.render import duration, print_line, print_note

    resumed = f", the first {report.resumed_from} from an earlier run" if report.resumed_from else ""
    print_line(
        f"{report.output}: {report.rows} vectors of {report.dimensions} dimensions ({report.dtype}) in "
        f"{duration(report.seconds)}{resumed}; {space}"
    )
    if report.truncated:
        print_note(
            f"{report.truncated} of {report.rows} texts are longer than {report.max_length} tokens and were cut there"
        )


def _refuse_documents(adapter: str, folder: Path) -> None:
    """Raise UsageError where the adapter is for queries only."""
    if Manifest.read(folder).query_side:
        raise UsageError(
            f"{adapter} is a query-side adapter: documents are embedded with the base alone (leave out --adapter); for "
            "queries give --queries"
        )
