"""Parameter names in messages as flags."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import scions
from scions.cli import app  # noqa: F401  (reads the flags of its commands)
from scions.cli.flags import with_flags


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("replace it with `force=True`", "replace it with --force"),
        ("`max_length=256` is too long", "--max-length 256 is too long"),
        ("`learning_rate=0.1`; `batch_size=-1`", "--learning-rate 0.1; --batch-size -1"),
        ("give `test=...`, or `columns=...`", "give --test, or --columns"),
        ("(`adapters=...`, `root=...`)", "(--adapters, --adapters)"),
        ("`base='my model'`, `columns=...`", "--base 'my model', --columns"),
        ("say `columns={'anchor': 'q', 'positive': 'a'}`", "say --columns anchor=q,positive=a"),
        ("say `columns={'anchor': \"it's\"}`", "say --columns 'anchor=it'\"'\"'s'"),
        ("the adapters' `general_texts='own'`.", "the adapters' --general-texts own."),
        ("'a' is bad; give `data=...` to 'b'", "'a' is bad; give --data to 'b'"),
    ],
)
def test_parameters_become_flags(message, shown):
    assert with_flags(message) == shown


@pytest.mark.parametrize(
    "message",
    [
        "`a=b` is no option of a command",
        "First row: name='Bob', target=True, limit=3, data='x'. Columns found: test=positive, seed=1",
        "the column 'a `force=True`'",
        'the line starts "use `seed=1` here"',
        r"""row 3 is 'it\'s "`seed=1`" and'""",
        "limit=3/x.csv: no such file",
        "seed=1.csv: no such file",
        '{"test": "limit=3", "force": "force=True"}',
        "line 3: unknown=1, force=True",
    ],
)
def test_other_text_stays(message):
    assert with_flags(message) == message


def test_library_messages_mark_their_parameters():
    """A message that names a parameter without backticks would reach the command line as Python."""
    root = Path(scions.__file__).parent
    rooms = ("data", "evaluation", "merging", "mixing", "store", "training", "vectors")
    bare = []
    for path in sorted(file for room in rooms for file in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                message = ast.unparse(node)
                bare += [f"{path}: {m}" for m in re.findall(r"(?<![\w`(,])[ (][a-z_]+=(?:True|\.\.\.)(?!`)", message)]
    assert not bare
