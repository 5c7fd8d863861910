"""The command line: one file a command, each of which parses, calls one function below and prints."""

from __future__ import annotations

from scions.cli.app import main

__all__ = ["main"]
