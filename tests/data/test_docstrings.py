from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scions.data import Shape, drift_pairs, read_docstrings, read_splits
from scions.data.docstrings import (
    MASK,
    PASSAGE_CHARACTERS,
    iter_docstrings,
    iter_modules,
    parse_docstring,
)
from scions.errors import DataError, UsageError

BODY = "A longer explanation that says at some length what comes in, what goes out and why it matters."


def package(folder: Path, name: str, count: int = 60) -> None:
    root = folder / name
    (root / "tests").mkdir(parents=True)
    (root / "tests" / "test_x.py").write_text(
        f'def hidden():\n    """Tests are no documentation.\n\n    {BODY}\n    """\n'
    )
    (root / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for i in range(count):
        text = f'"""Compute the quantity number {i} of {name}.\n\n    For case {i} of {name}: {BODY}\n    """'
        (root / f"part{i}.py").write_text(f"def compute{i}():\n    {text}\n\ndef _private():\n    {text}\n")


def test_a_docstring_becomes_summary_and_masked_body() -> None:
    text = f"""solve(a, b)

    Find the roots of an equation, e.g. of a polynomial. More in the same paragraph.

    Parameters
    ----------
    a : use `pkg.solve` or solve, never resolve nor solver.

    >>> solve(1)
    {BODY}
    """
    made = parse_docstring("m", "Root.solve", text)
    assert made is not None
    assert made.summary == "Find the roots of an equation, e.g. of a polynomial."
    assert made.body.startswith("More in the same paragraph. Parameters a :")
    assert f"`{MASK}` or {MASK}, never resolve nor solver" in made.body
    assert "----" not in made.body
    assert ">>>" not in made.body


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Too short.\n\n" + BODY,
        "A summary of some words.\n\nToo little body.",
        f"Say it twice here.\n\nSay it twice here. {BODY}",
    ],
)
def test_docstrings_of_no_use(text: str) -> None:
    assert parse_docstring("m", "name", text) is None


def test_long_bodies_are_cut_between_words() -> None:
    made = parse_docstring("m", "name", "A summary of some words.\n\n" + "lengthy " * 500)
    assert made is not None
    assert PASSAGE_CHARACTERS - 50 < len(made.body) <= PASSAGE_CHARACTERS
    assert made.body.endswith("lengthy")


def test_tests_private_names_and_broken_files_are_left_out(tmp_path: Path) -> None:
    package(tmp_path, "somepkg", count=2)
    (tmp_path / "somepkg" / "broken.py").write_text('"""doc"""\ndef (')
    found = [
        entry for name, path in iter_modules(tmp_path / "somepkg", "somepkg") for entry in iter_docstrings(name, path)
    ]
    assert [entry.name for entry in found] == ["compute0", "compute1"]


def test_parts_by_module_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "graftone")
    package(tmp_path, "grafttwo")
    monkeypatch.syspath_prepend(tmp_path)
    made = read_splits("docstrings:graftone,grafttwo")
    assert "graftone" not in sys.modules
    parts = (made.train, made.dev, made.test)
    assert all(part.shape is Shape.RETRIEVAL and part.group for part in parts)
    assert sum(map(len, parts)) == 120
    assert len(made.train) > len(made.test) > 0
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not set(one.group or []) & set(other.group or [])
            assert not set((one.corpus or {}).values()) & set((other.corpus or {}).values())
    assert "docstrings: 60 pairs from graftone" in made.notes
    # a module stays on its side when other packages come or go
    alone = read_docstrings(["graftone"])
    assert set(alone.test.group or []) <= set(made.test.group or [])
    assert read_docstrings(["graftone"], seed=1).test.group != alone.test.group


def test_near_duplicates_stay_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "graftthree", count=30)
    text = f'"""Compute the  Quantity number 3 of graftthree.\n\n    Another {BODY}\n    """'
    (tmp_path / "graftthree" / "copy.py").write_text(f"def inherited():\n    {text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = read_docstrings(["graftthree"])
    assert sum(map(len, (made.train, made.dev, made.test))) == 30


def test_packages_that_are_not_there() -> None:
    for name in ("no_such_package_here", "os.path", "../x"):
        with pytest.raises(DataError, match="is not installed"):
            read_docstrings([name])
    with pytest.raises(UsageError, match="shape retrieval"):
        read_splits("docstrings", shape="pairs")


def test_absent_default_packages_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "graftfour")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("scions.data.docstrings.PACKAGES", ("graftfour", "no_such_package_here"))
    assert "docstrings: no_such_package_here is not installed, left out" in read_docstrings().notes


def test_drift_pairs_are_distinct_and_repeatable() -> None:
    pairs = drift_pairs(90, seed=4)
    assert len(set(pairs)) == 90
    assert pairs == drift_pairs(90, seed=4)
    assert pairs != drift_pairs(90, seed=5)
    assert all(one and other and one != other for one, other in pairs)
    # a third goes with its own body, which is far longer than any summary
    assert sum(len(other.split()) > len(one.split()) for one, other in pairs) >= 20


def test_drift_without_a_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="no source files"):
        drift_pairs(10)
