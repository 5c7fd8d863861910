"""Check that a table can be learned from or scored, and fingerprint it."""

from __future__ import annotations

import hashlib
import json
import math

from scions.data.leaks import row_content
from scions.data.shapes import Shape, Table
from scions.errors import DataError


def check_trainable(table: Table) -> None:
    """Raise DataError where nothing can be learned: no rows, one class, equal scores, a score not finite."""
    if not len(table):
        raise DataError(f"{table.source}: no rows to train on")
    if table.shape in (Shape.LABELLED, Shape.BINARY):
        labels = set(table.columns["label"])
        if len(labels) == 1:
            need = "both 0 and 1" if table.shape is Shape.BINARY else "at least two"
            hint = "; rows that all match train as pairs: `shape='pairs'`" if labels == {1} else ""
            raise DataError(
                f"{table.source}: all {len(table)} labels are {labels.pop()!r}; {need} are needed to learn from{hint}"
            )
    if table.shape is Shape.SCORED:
        scores = table.columns["score"]
        for row, score in enumerate(scores, start=1):
            if not math.isfinite(score):
                raise DataError(f"{table.source}, row {row}: the score is {score}; it must be a finite number")
        if len(set(scores)) == 1:
            raise DataError(
                f"{table.source}: all {len(table)} scores are {scores[0]}; scores must differ to learn from"
            )


def check_scorable(table: Table, part: str) -> None:
    """Raise DataError where a held-out part cannot rank encoders: one label, equal scores, no label twice."""
    where = f"{table.source}, {part} rows"
    more = f"Add rows, or name a file with `{part}=...`"
    if table.shape in (Shape.LABELLED, Shape.BINARY):
        labels = table.columns["label"]
        if len(set(labels)) < 2:
            raise DataError(f"{where}: all {len(table)} labels are {labels[0]!r}; two are needed to score. {more}")
        if table.shape is Shape.LABELLED and len(set(labels)) == len(labels):
            raise DataError(
                f"{where}: none of the {len(table)} labels occurs twice; a label needs two rows to show whether its "
                f"texts lie together. {more}"
            )
    if table.shape is Shape.SCORED and len(set(table.columns["score"])) < 2:
        raise DataError(f"{where}: all {len(table)} scores are equal; they must differ to score. {more}")


def fingerprint(table: Table) -> str:
    """Return the SHA-256 (64 hex digits) of shape, rows and corpus.

    Row order, file format, notes, source and groups do not matter.
    """
    digest = hashlib.sha256(json.dumps(["scions-table-1", table.shape.value]).encode())
    for content in sorted(row_content(table)):
        digest.update(b"\n" + content.encode())
    for item in sorted((table.corpus or {}).items()):
        digest.update(b"\n" + json.dumps(item).encode())
    return digest.hexdigest()
