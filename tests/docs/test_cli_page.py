"""docs/cli.md agrees with the commands."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from scions.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli", DOCS / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_commands_give(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")  # the terminal has no say in it
    monkeypatch.setenv("TERM", "dumb")
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == _generator().page(), "run: make docs"


def test_every_option_that_help_shows_is_on_the_page(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for command in ("train", "evaluate", "embed", "list"):
        part = page.split(f"\n## scions {command}\n")[1].split("\n## ")[0]
        main([command, "--help"])
        shown = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", capsys.readouterr().out.split("Options")[-1])) - {"--help"}
        assert shown
        assert shown <= set(re.findall(r"`(--[a-z][a-z-]+)`", part))
