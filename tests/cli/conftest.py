from __future__ import annotations

from itertools import pairwise

import pytest

from scions.cli import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def pairs(tmp_path):
    """Fifteen pairs whose sides share a word."""
    import json

    law = ["court", "contract", "party", "claim", "judge", "law"]
    medicine = ["patient", "dose", "drug", "fever"]
    machines = ["engine", "valve", "pump", "battery", "motor", "device"]
    words = [*law, *medicine, *machines]
    path = tmp_path / "pairs.jsonl"
    rows = [{"anchor": f"the {word}", "positive": f"a {word} of the {other}"} for word, other in pairwise(words)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path
