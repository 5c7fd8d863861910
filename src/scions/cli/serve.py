"""`scions serve`: serve every adapter of a folder over HTTP."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from scions.cli.options import AdaptersFolder, base_option, optional
from scions.errors import UsageError

_GPU_BATCH_TOKENS = 16_384  # the default, made for a processor, is too few for a GPU


def serve(
    adapters: AdaptersFolder = None,
    base: Annotated[str | None, base_option("all-MiniLM-L6-v2")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one open to the network needs --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, optional("JSON file of API keys.", "none; this machine only")] = None,
    memory: Annotated[str, typer.Option(help="Memory for loaded adapters, such as 512MB or 4GB.")] = "1GB",
    max_rows: Annotated[int, typer.Option(min=1, help="Maximum inputs in a request.")] = 2048,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens in a request.")] = 300_000,
    max_body: Annotated[str, typer.Option(help="Maximum size of a request.")] = "4MB",
    queue_rows: Annotated[
        int, typer.Option("--max-queue", min=2, help="Maximum rows in the queue; further requests get 429.")
    ] = 16_384,
) -> None:
    """Serve one base and all its adapters with OpenAI's embeddings API.

    Adapters are loaded on first use, and can be added, replaced and removed while the server runs. Ctrl-C and SIGTERM
    let running requests finish.

    \b
    Example:
      scions serve --adapters adapters
      curl -H 'Content-Type: application/json' -d '{"model": "legal", "input": "The seller bears the cost."}' \\
        http://127.0.0.1:8000/v1/embeddings
    """
    from scions.serving import check_installed

    check_installed()

    from scions.serving import Keys, Settings, check_host, listen

    known_keys = None if keys is None else Keys.read(keys)
    check_host(host, known_keys)
    settings = Settings(
        memory=size(memory, "--memory"),
        max_body=size(max_body, "--max-body"),
        max_rows=max_rows,
        max_tokens=max_tokens,
        queue_rows=queue_rows,
    )
    listening = listen(host, port)  # fails before the model is loaded

    from scions.cli.progress import status
    from scions.cli.render import errors
    from scions.store import default_root

    root = adapters or default_root()
    with listening:
        with status("loading the base"):
            from scions.encoder.domain_encoder import DomainEncoder
            from scions.serving import BaseInfo, build, run
            from scions.serving.logs import to_stderr

            encoder = DomainEncoder(base)
            if encoder.device.type == "cuda":
                settings = replace(settings, batch_tokens=_GPU_BATCH_TOKENS)
            base_info = BaseInfo.of(encoder)
            app = build(encoder, base_info, encoder.read_adapter, root, host=host, settings=settings, keys=known_keys)
        listening.listen()  # clients may connect as soon as they read the line below
        url_host = f"[{host}]" if ":" in host else host
        errors().print(
            f"{encoder.base_name} with {app.state.service.adapter_cache.registered} adapters from {root} on "
            f"http://{url_host}:{listening.getsockname()[1]}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        to_stderr()
        run(app, listening)


def size(text: str, option: str) -> int:
    """Return the bytes of ``512MB``, ``4 GB``, ``100k`` or a plain number; a kB is 1,000.

    Raises:
        UsageError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?)b?\s*", text.lower())
    number = int(float(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]]) if match else 0
    if number < 1:
        raise UsageError(f"{option} {text!r}: expected a size such as 512MB or 4GB")
    return number
