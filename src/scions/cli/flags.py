"""Turn the parameter names in a library's message into the command line's flags.

Library code knows no flags: its messages name parameters as Python has them, ``force=True`` or ``learning_rate=0.1``.
"""

from __future__ import annotations

import functools
import re

import typer
import typer.main

# Parameters of the library that commands call otherwise.
_RENAMED = {"root": "--adapters"}
_apps: list[typer.Typer] = []


def read_flags_from(app: typer.Typer) -> None:
    """Take the options of this app's commands as the flags there are."""
    _apps[:] = [app]
    _flags.cache_clear()


def with_flags(message: str) -> str:
    """``message`` with ``force=True`` as ``--force`` and ``max_length=256`` as ``--max-length 256``.

    Only names that are options of some command are replaced, so that other text with an equals sign stays as it is.
    """

    def flag(match: re.Match[str]) -> str:
        flags = _flags()
        if match["name"] not in flags:
            return match[0]
        value = match["value"] or ""
        return flags[match["name"]] + ("" if value in ("", "True", "...") else f" {value}")

    return re.sub(r"(?<![\w\"'.-])(?P<name>[a-z][a-z_]*)=(?P<value>True\b|\.\.\.|[\w.+/-]*\w)?(?!=)", flag, message)


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
