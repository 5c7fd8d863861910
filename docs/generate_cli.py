"""Write docs/cli.md from the commands' help.

    python docs/generate_cli.py [--check]

With --check nothing is written, and the exit code says whether the page is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "cli.md"


def page() -> str:
    """Return the page."""
    import typer

    from scions.cli.app import app

    group: Any = typer.main.get_command(app)
    lines = ["# The command line", ""]
    lines += ["<!-- Written by docs/generate_cli.py; change the commands, not this page. -->", ""]
    lines += _prose(group.help)
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = ["scions", name, *(_argument(p) for p in arguments), "[OPTIONS]"]
        lines += [f"## scions {name}", "", "```", " ".join(usage), "```", "", *_prose(command.help)]
        if arguments:
            rows = [f"| `{p.name}` | {_needed(p)} | {_cell(p.help)} |" for p in arguments]
            lines += ["| argument | | description |", "|---|---|---|", *rows, ""]
        options = [p for p in command.params if p.param_type_name == "option"]
        rows = [f"| {_names(p)} | {_default(p)} | {_cell(p.help)} |" for p in options]
        lines += ["| option | default | description |", "|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _prose(text: str) -> list[str]:
    """Return paragraphs; those marked as preformatted (a backspace alone on a line) become a code block."""
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("\b"):
            title, *code = paragraph.removeprefix("\b").strip().splitlines()
            lines += [title, "", "```", *(line.strip() for line in code), "```", ""]
        else:
            lines += [" ".join(paragraph.split()), ""]
    return lines


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    names = [f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)]
    return ", ".join(names) + (" (may be repeated)" if parameter.multiple else "")


def _needed(parameter: Any) -> str:
    return "required" if parameter.required else "optional"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    if parameter.is_flag:
        names = parameter.opts if parameter.default else parameter.secondary_opts
        return f"`{names[0]}`" if parameter.secondary_opts else "off"
    return "none" if parameter.default is None else f"`{parameter.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
