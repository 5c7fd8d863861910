from __future__ import annotations

import pytest

from scions.cli import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call
