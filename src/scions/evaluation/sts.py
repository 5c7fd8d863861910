"""Score the seven general similarity tasks of sentence encoders, and their mean, STS7."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from scions.data.columns import parse_number
from scions.data.files import excerpt, read_rows
from scions.data.shapes import Shape
from scions.errors import DataError
from scions.evaluation.encoders import Encoder, encode_texts
from scions.evaluation.pair_tasks import similarity_evaluation
from scions.evaluation.scores import Evaluation, SpearmanOfUnits, concluded

STS_TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr")


def evaluate_sts(encoder: Encoder, folder: str | Path, *, batch_size: int = 64) -> dict[str, Evaluation]:
    """Return Spearman x100 of each task over all its rows (the "all" setting), and their mean under "STS7".

    folder: holds sts12.jsonl … sts16.jsonl, stsb_test.jsonl and sickr.jsonl, each line a sentence1, sentence2, score.
    The Evaluation "STS7" resamples the rows of all tasks together, so `interval` and `paired_difference` work on it.
    Raises DataError where a file is missing or a line is not such a row.
    """
    tasks = read_sts(folder)
    vectors = encode_texts(
        encoder, (text for rows in tasks.values() for row in rows for text in row[:2]), batch_size=batch_size
    )
    result: dict[str, Evaluation] = {}
    parts: list[SpearmanOfUnits] = []
    names: list[str] = []
    for name, rows in tasks.items():
        first, second = vectors.of(a for a, _, _ in rows), vectors.of(b for _, b, _ in rows)
        similarities, gold = np.einsum("nd,nd->n", first, second), np.array([score for _, _, score in rows])
        texts = [f"{a}\t{b}" for a, b, _ in rows]
        result[name] = similarity_evaluation(similarities, gold, texts)
        parts.append(SpearmanOfUnits(similarities, gold))
        names += texts
    result["STS7"] = concluded(Shape.SCORED, "spearman", {"spearman": MeanOfTasks(parts)}, names)
    return result


def read_sts(folder: str | Path) -> dict[str, list[tuple[str, str, float]]]:
    """Return the rows of each task: two sentences and their score.

    Raises DataError where a file is missing, not UTF-8 or empty, or a line is not such a row; names file and line.
    """
    folder = Path(folder)
    paths = {name: folder / f"{name}.jsonl" for name in STS_TASKS}
    files = ", ".join(path.name for path in paths.values())
    if not folder.is_dir():
        state = "is no folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {state}; STS7 needs one with {files}")
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} not found. STS7 needs all seven: {files}.")
    return {name: _read(path) for name, path in paths.items()}


class MeanOfTasks:
    """Mean Spearman of several tasks whose rows are numbered consecutively, task after task."""

    def __init__(self, parts: list[SpearmanOfUnits]) -> None:
        self.parts = parts
        self.bounds = np.cumsum([0, *(len(part.gold) for part in parts)])

    def __call__(self, indices: np.ndarray) -> float:
        ordered = np.sort(indices)
        edges = np.searchsorted(ordered, self.bounds)
        values = [
            part(ordered[low:high] - start) if high > low else float("nan")
            for part, start, low, high in zip(self.parts, self.bounds, edges, edges[1:], strict=False)
        ]
        return float(np.mean(values))

    def differing(self, other: MeanOfTasks) -> np.ndarray:
        """`[n]`, which rows two encoders rank differently."""
        return np.concatenate([mine.differing(others) for mine, others in zip(self.parts, other.parts, strict=True)])

    def exchanged(self, other: MeanOfTasks, swaps: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """As for `SpearmanOfUnits`, within each task."""
        each = [
            mine.exchanged(others, swaps, groups[start:end])
            for mine, others, start, end in zip(self.parts, other.parts, self.bounds, self.bounds[1:], strict=False)
        ]
        return np.asarray(np.mean(each, axis=0))


def _read(path: Path) -> list[tuple[str, str, float]]:
    read = read_rows(path)
    rows = []
    for i, row in enumerate(read.rows):
        first, second, score = row.get("sentence1"), row.get("sentence2"), parse_number(row.get("score"))
        if not (isinstance(first, str) and first.strip() and isinstance(second, str) and second.strip()):
            raise DataError(f"{read.where(i)}: sentence1 and sentence2 must hold text, found {excerpt(row)}")
        if score is None or not math.isfinite(score):
            raise DataError(f"{read.where(i)}: score must be a finite number, found {excerpt(row.get('score'))}")
        rows.append((first, second, score))
    if len({score for _, _, score in rows}) < 2:
        raise DataError(f"{path}: all {len(rows)} scores are equal; they must differ to be ranked")
    return rows
