"""Score rows of two sentences: graded similarity (Spearman) and same or not (average precision)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scions.data.groups import group_rows
from scions.data.shapes import Shape, Table
from scions.errors import DataError
from scions.evaluation import metrics
from scions.evaluation.encoders import Encoder, cosines
from scions.evaluation.scores import BinaryOfUnits, Evaluation, SpearmanOfUnits, concluded


def scored(encoder: Encoder, table: Table, batch_size: int = 64) -> Evaluation:
    """Return `spearman` of cosine against score. Raises DataError where all scores are equal."""
    gold = np.asarray(table.columns["score"], dtype=np.float64)
    if len(set(gold.tolist())) < 2:
        raise DataError(f"{table.source}: all {len(gold)} scores equal {gold[0]:g}; Spearman needs different ones.")
    return similarity_evaluation(_cosines(encoder, table, batch_size), gold, _rows(table), group_rows(table)[0])


def similarity_evaluation(
    similarities: np.ndarray, gold: np.ndarray, rows: list[str], groups: Sequence[int] | None = None
) -> Evaluation:
    """Return the Evaluation of `[n]` similarities against `[n]` gold scores; `rows` identify the rows."""
    return concluded(Shape.SCORED, "spearman", {"spearman": SpearmanOfUnits(similarities, gold)}, rows, groups=groups)


def binary(encoder: Encoder, table: Table, batch_size: int = 64) -> Evaluation:
    """Return `average_precision` and `roc_auc` of cosine against label; neither needs a threshold.

    Raises DataError where a label is neither 0 nor 1, or only one of them occurs.
    """
    labels = np.asarray(table.columns["label"])
    found = ", ".join(sorted({str(x) for x in labels.tolist()})[:5])
    if not set(labels.tolist()) == {0, 1}:
        raise DataError(f"{table.source}: labels 0 and 1 must both occur and no others; found {found}.")
    labels, similarities = labels.astype(np.int64), _cosines(encoder, table, batch_size)
    return concluded(
        Shape.BINARY,
        "average_precision",
        {
            "average_precision": BinaryOfUnits(metrics.average_precision, similarities, labels),
            "roc_auc": BinaryOfUnits(metrics.roc_auc, similarities, labels),
        },
        _rows(table),
        groups=group_rows(table)[0],
    )


def _cosines(encoder: Encoder, table: Table, batch_size: int) -> np.ndarray:
    return cosines(encoder, table.columns["sentence1"], table.columns["sentence2"], batch_size=batch_size)


def _rows(table: Table) -> list[str]:
    return [f"{a}\t{b}" for a, b in table.row_texts()]
