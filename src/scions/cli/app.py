"""The Typer app; `main` turns errors into one line on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from scions.cli.compare import compare
from scions.cli.embed import embed
from scions.cli.evaluate import evaluate
from scions.cli.exit_codes import FAILURE, STOPPED, exit_code, report
from scions.cli.flags import read_flags_from
from scions.cli.importance import importance
from scions.cli.list import list_
from scions.cli.mix import mix
from scions.cli.options import renamed_flags
from scions.cli.prune import prune
from scions.cli.quiet import DEBUG_VARIABLE, debugging, silence
from scions.cli.reindex import reindex
from scions.cli.select import select
from scions.cli.serve import serve
from scions.cli.train import train
from scions.errors import ScionsError
from scions.version import __version__

app = typer.Typer(
    name="scions",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"scions {__version__}")
        raise typer.Exit


@app.callback()
def scions(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Many domains from one frozen sentence-embedding model: one small adapter each, trained on your own text.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an adapter was worse than its base, 130 stopped by Ctrl-C.
    """


app.command("train", cls=renamed_flags(), no_args_is_help=True)(train)
app.command("evaluate", cls=renamed_flags(), no_args_is_help=True)(evaluate)
app.command("embed", no_args_is_help=True)(embed)
app.command("reindex", no_args_is_help=True)(reindex)
app.command("list", cls=renamed_flags())(list_)
app.command("importance", no_args_is_help=True)(importance)
app.command("compare", cls=renamed_flags(), no_args_is_help=True)(compare)
app.command("mix", cls=renamed_flags(kept="density"), no_args_is_help=True)(mix)
app.command("select", cls=renamed_flags(most="limit"), no_args_is_help=True)(select)
app.command("prune", cls=renamed_flags(), no_args_is_help=True)(prune)
app.command("serve")(serve)
read_flags_from(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: ``sys.argv``) and return its exit code."""
    silence()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="scions")
    except SystemExit as end:
        if end.code == STOPPED:  # typer handles Ctrl-C silently
            typer.secho("Stopped.", fg="red", err=True)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ScionsError as error:
        if debugging():
            raise
        report(error)
        return exit_code(error)
    except KeyboardInterrupt:
        typer.secho("Stopped.", fg="red", err=True)
        return STOPPED
    except Exception as error:
        if debugging():
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        typer.secho(f"Unexpected error: {type(error).__name__}: {first}", fg="red", err=True)
        typer.echo(f"This is a bug in Scions. Set {DEBUG_VARIABLE}=1 to see the traceback.", err=True)
        return FAILURE
    return 0
