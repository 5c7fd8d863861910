"""Replace the parameter names in a message of the library by the command line's flags.

Library code knows no flags: its messages name parameters in backticks, as Python has them: `` `force=True` ``.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
from typing import Any

import typer
import typer.main

# Parameters of the library whose flag has another name.
_RENAMED = {"root": "--adapters"}
# Strings come first, so that nothing inside a quoted row or label is taken for a parameter.
_QUOTED = r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)"(?:[^"\\]|\\.)*"(?!\w)"""
_PARAMETER = re.compile(rf"{_QUOTED}|`(?P<name>[a-z][a-z_]*)=(?P<value>[^`]+)`")
_apps: list[typer.Typer] = []


def read_flags_from(app: typer.Typer) -> None:
    """Use the options of this app's commands as the known flags."""
    _apps[:] = [app]
    _flags.cache_clear()


def with_flags(message: str) -> str:
    """Return ``message`` with `` `force=True` `` as ``--force`` and `` `max_length=256` `` as ``--max-length 256``.

    Only names in backticks that are options of some command are replaced. Other text stays as it is, and so does
    everything in quotes: it may be a user's data.
    """

    def flag(match: re.Match[str]) -> str:
        name = _flags().get(match["name"] or "")
        if name is None:
            return match[0]
        if match["value"] in ("True", "..."):
            return name
        return f"{name} {shlex.quote(_argument(match['value']))}"

    return _PARAMETER.sub(flag, message)


def _argument(value: str) -> str:
    """Return a value written in Python as the command line takes it."""
    try:
        parsed: Any = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value
    if isinstance(parsed, dict):
        return ",".join(f"{key}={item}" for key, item in parsed.items())
    return parsed if isinstance(parsed, str) else value


@functools.cache
def _flags() -> dict[str, str]:
    flags = dict(_RENAMED)
    for app in _apps:
        for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
            for parameter in command.params:
                long = [text for text in parameter.opts if text.startswith("--")]
                if long:
                    flags.setdefault(str(parameter.name), long[0])
    return flags
