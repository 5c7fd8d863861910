"""Replace the parameter names in a message of the library by the command line's flags.

Library code knows no flags: its messages name parameters as Python has them, ``force=True`` or ``learning_rate=0.1``.
"""

from __future__ import annotations

import ast
import functools
import re

import typer
import typer.main

# Parameters of the library whose flag has another name.
_RENAMED = {"root": "--adapters"}
# A value is True, ... (none), a quoted string, a dict or a plain word; a longer path (``seed=1/part.csv``) is none.
_PARAMETER = re.compile(
    r"""(?<![\w"'.?&/-])(?P<name>[a-z][a-z_]*)=(?P<value>\.\.\.|'[^']*'|\{'[^{}]*\}|[\w.+-]*\w)(?![\w/=])"""
)
_apps: list[typer.Typer] = []


def read_flags_from(app: typer.Typer) -> None:
    """Use the options of this app's commands as the known flags."""
    _apps[:] = [app]
    _flags.cache_clear()


def with_flags(message: str) -> str:
    """Return ``message`` with ``force=True`` as ``--force`` and ``max_length=256`` as ``--max-length 256``.

    Only names that are options of some command are replaced; other text with an equals sign stays as it is.
    """

    def flag(match: re.Match[str]) -> str:
        name = _flags().get(match["name"])
        if name is None:
            return match[0]
        value = match["value"]
        if value.startswith("{"):
            value = ",".join(f"{key}={item}" for key, item in ast.literal_eval(value).items())
        return name if value in ("True", "...") else f"{name} {value}"

    return _PARAMETER.sub(flag, message)


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
