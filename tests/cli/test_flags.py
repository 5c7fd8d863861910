"""Parameter names in messages as flags."""

from __future__ import annotations

import pytest

from scions.cli import app  # noqa: F401  (reads the flags of its commands)
from scions.cli.flags import with_flags


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("replace it with force=True", "replace it with --force"),
        ("max_length=256 is too long", "--max-length 256 is too long"),
        ("learning_rate=0.1; batch_size=-1", "--learning-rate 0.1; --batch-size -1"),
        ("give test=..., or columns=...", "give --test, or --columns"),
        ("(adapters=..., root=...)", "(--adapters, --adapters)"),
        ("base='my model', columns=...", "--base 'my model', --columns"),
        ("say columns={'anchor': 'my q', 'positive': \"it's\"}", "say --columns anchor=my q,positive=it's"),
        ("general_texts=own.", "--general-texts own."),
    ],
)
def test_parameters_become_flags(message, shown):
    assert with_flags(message) == shown


@pytest.mark.parametrize(
    "message",
    [
        "a=b is no option of a command",
        "the column 'force=True'",
        '"seed=1" was found',
        "x.seed=1, my-seed=1",
        "seed==1",
        "a query?limit=3&seed=1",
        "data/seed=1/part.csv: no such file",
        "seed=15/part.csv: no such file",
        "line 3: unknown=1, nothing = 2",
    ],
)
def test_other_text_stays(message):
    assert with_flags(message) == message
