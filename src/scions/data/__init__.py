"""Read training data, recognize its columns, and split it; a built-in corpus of docstrings."""

from __future__ import annotations

from scions.data.checks import check_scorable, check_trainable, fingerprint
from scions.data.docstrings import drift_pairs, read_docstrings
from scions.data.read import read, read_splits
from scions.data.shapes import Shape, Splits, Table
from scions.data.splits import split

__all__ = [
    "Shape",
    "Splits",
    "Table",
    "check_scorable",
    "check_trainable",
    "drift_pairs",
    "fingerprint",
    "read",
    "read_docstrings",
    "read_splits",
    "split",
]
