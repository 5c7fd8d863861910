"""Benchmarks: what they import exists, and their cells survive being written one by one."""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.name)
def test_what_they_import_of_the_package_exists(path):
    warnings.simplefilter("error", DeprecationWarning)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "scions":
            module = importlib.import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")


@pytest.fixture
def cells(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("cell_store")
    yield lambda source=None: module.Cells(tmp_path / "results", source)
    sys.modules.pop("cell_store")


def test_cells_are_written_one_by_one_and_seen_by_others(cells):
    mine, other = cells({"commit": "abc"}), cells()
    assert not other.has("final-a")
    mine.write("final-a", {"score": 1.5}, {"draws": np.arange(3)})
    mine.write("final-a-b", {"score": 2})
    other.write("grid-a", {"score": None})
    assert mine.load("final-a") == {"score": 1.5, "provenance": {"commit": "abc"}}
    assert [cell["score"] for cell in other.all("final")] == [2, 1.5]
    assert mine.all("grid") == [{"score": None}]
    assert other.units("final-a")["draws"].tolist() == [0, 1, 2]
    mine.remove("grid-a")
    assert not other.has("grid-a")


def test_a_cell_written_anew_replaces_its_units(cells):
    store = cells()
    store.write("a", {"score": 1}, {"old": np.zeros(2)})
    store.write("b", {"score": 1}, {"kept": np.ones(1)})
    store.write("a", {"score": 2}, {"new": np.ones(2)})
    assert store.load("a") == {"score": 2}
    assert set(store.units("a")) == {"new"}
    assert set(store.units("b")) == {"kept"}
    assert sorted(path.name for path in store.folder.iterdir()) == ["cells.json", "units.npz"]


def test_committed_cells_say_where_they_come_from():
    import json

    for path in BENCHMARKS.glob("results/*/cells.json"):
        for name, cell in json.loads(path.read_text(encoding="utf-8")).items():
            assert {"commit", "machine", "versions"} <= set(cell["provenance"]), f"{path}: {name}"
