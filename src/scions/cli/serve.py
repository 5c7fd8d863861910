"""`scions serve`: every adapter of a folder behind an HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scions.cli.options import AdaptersFolder

_GPU_BATCH_TOKENS = 16_384  # a GPU is idle at the few that keep a processor busy


def serve(
    adapters: AdaptersFolder = None,
    base: Annotated[
        str | None, typer.Option(help="The base: a folder or an id on the Hub.", show_default="all-MiniLM-L6-v2")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; another than this machine's needs --keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="A JSON file of API keys.", show_default="none; this machine only")
    ] = None,
    memory: Annotated[str, typer.Option(help="For loaded adapters: 512MB, 4GB.")] = "1GB",
    max_rows: Annotated[int, typer.Option(min=1, help="Inputs in a request.")] = 2048,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a request.")] = 300_000,
    max_body: Annotated[str, typer.Option(help="Size of a request.")] = "4MB",
    queue_rows: Annotated[
        int, typer.Option("--max-queue", min=2, help="Rows that may wait; then requests are refused (429).")
    ] = 16_384,
) -> None:
    """Serve embeddings of one base and all its adapters, as the OpenAI API gives them.

    Adapters are read on first use, and may be added, replaced and removed while it runs. Ctrl-C and SIGTERM let
    running requests finish.

    \b
    Example:
      scions serve --adapters adapters
      curl -H 'Content-Type: application/json' -d '{"model": "legal", "input": "The seller bears the cost."}' \\
        http://127.0.0.1:8000/v1/embeddings
    """
    from scions.serving import Keys, Settings, check_host, check_installed, listen

    check_installed()
    known = None if keys is None else Keys.read(keys)
    check_host(host, known)
    settings = Settings(
        memory=size(memory, "--memory"),
        max_body=size(max_body, "--max-body"),
        max_rows=max_rows,
        max_tokens=max_tokens,
        queue_rows=queue_rows,
    )
    listening = listen(host, port)  # before a model is loaded for nothing

    from dataclasses import replace

    from scions.cli.progress import status
    from scions.cli.render import errors
    from scions.store import default_root

    place = adapters or default_root()
    with listening:
        with status("loading the base"):
            from scions.encoder.domain_encoder import DomainEncoder
            from scions.serving import BaseInfo, build, run
            from scions.serving.logs import to_stderr

            encoder = DomainEncoder(base)
            if encoder.device.type == "cuda":
                settings = replace(settings, batch_tokens=_GPU_BATCH_TOKENS)
            app = build(
                encoder, BaseInfo.of(encoder), encoder.read_adapter, place, host=host, settings=settings, keys=known
            )
        listening.listen()  # who reads the line below may connect at once
        shown = f"[{host}]" if ":" in host else host
        errors().print(
            f"{encoder.base_name} with {app.state.service.adapter_cache.registered} adapters from {place} on "
            f"http://{shown}:{listening.getsockname()[1]}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        to_stderr()
        run(app, listening)


def size(text: str, option: str) -> int:
    """Bytes of ``512MB``, ``4 GB``, ``100k`` or a plain number; a kB is 1,000.

    Raises:
        UsageError: it is none of these.
    """
    import re

    from scions.errors import UsageError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?)b?\s*", text.lower())
    number = int(float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[found[2]]) if found else 0
    if number < 1:
        raise UsageError(f"{option} {text!r}: expected a size such as 512MB or 4GB")
    return number
