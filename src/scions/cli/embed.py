"""`scions embed`: a file of texts to a file of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scions.store.names import BASE


def embed(
    texts: Annotated[Path, typer.Argument(help="txt, jsonl, csv, tsv or parquet, each also .gz.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to: .npy, .parquet or .jsonl.", show_default=False)
    ],
    adapter: Annotated[
        str | None,
        typer.Option(
            help="An adapter's name or folder, any SentenceTransformer, or auto: the texts decide.",
            show_default="the base alone",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base: a folder or an id on the Hub.", show_default="the adapter's own")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column that holds the text.", show_default="recognised by name")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Use the model's prompt of this name: query, document.", show_default="the model's default"),
    ] = None,
    queries: Annotated[
        bool, typer.Option("--queries", help="The texts are queries: what a query-side adapter is for.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts encoded together.")] = 64,
    dtype: Annotated[str, typer.Option(help="float32, or float16 for half the size.")] = "float32",
    normalize: Annotated[bool, typer.Option("--normalize/--no-normalize", help="Vectors of length 1.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
) -> None:
    """Write one vector for each row of a file, of any size.

    The name of the space (base and adapter) goes with the vectors, in OUTPUT.json and in parquet's metadata.

    \b
    Example:
      scions embed --adapter legal texts.txt -o vectors.npy
    """
    from scions.cli.progress import RowsBar, status
    from scions.cli.render import console, duration, print_note
    from scions.errors import UsageError
    from scions.vectors.embed import embed_file
    from scions.vectors.writer import check_output

    check_output(output, texts, dtype)  # before a model is loaded for nothing
    if adapter == "auto-rows":
        raise UsageError("auto-rows: the vectors of a file lie in one space; give --adapter auto")
    if adapter == "auto":
        from scions.vectors.choose_adapter import choose_adapter

        with status("choosing the adapter"):
            choice = choose_adapter(
                texts, output, column=column, base=base, queries=queries or prompt == "query", resume=resume
            )
        adapter, base = choice.adapter, choice.base
        print_note(choice.reason)
    with status("loading the model"):
        from scions.encoder.base_info import space_of
        from scions.encoder.loading import adapter_folder, load_encoder

        folder = None if adapter in (None, BASE) else adapter_folder(str(adapter))[0]
        if folder is not None and not (queries or prompt == "query"):
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
    went_on = f", the first {report.resumed_from} from an earlier run" if report.resumed_from else ""
    console().print(
        f"{report.output}: {report.rows} vectors of {report.dimensions} dimensions ({report.dtype}) in "
        f"{duration(report.seconds)}{went_on}; space {report.space.fingerprint}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if report.truncated:
        print_note(
            f"{report.truncated} of {report.rows} texts are longer than {report.max_length} tokens and were cut there"
        )


def _refuse_documents(adapter: str, folder: Path) -> None:
    """Raise UsageError where the adapter is for queries alone and nothing says that the texts are queries."""
    from scions.errors import UsageError
    from scions.store import Manifest

    if Manifest.read(folder).query_side:
        raise UsageError(
            f"{adapter} is a query-side adapter: documents are embedded with the base alone (leave out --adapter); for "
            "queries give --queries"
        )
