"""The seven general similarity tasks that sentence encoders are commonly held against, and their mean, STS7."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scions.data.shapes import Shape
from scions.errors import DataError
from scions.evaluation.encoding import Encoder, encode_texts
from scions.evaluation.outcome import Evaluation, SpearmanOfUnits, concluded
from scions.evaluation.pair_tasks import similarity_evaluation

STS_TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr")


def evaluate_sts(encoder: Encoder, folder: str | Path, *, batch_size: int = 64) -> dict[str, Evaluation]:
    """Spearman x100 of each task over all its rows (the "all" setting), and their mean under "STS7".

    folder: holds sts12.jsonl … sts16.jsonl, stsb_test.jsonl and sickr.jsonl, each line a sentence1, sentence2, score.
    The Evaluation "STS7" resamples the rows of all tasks together, so `interval` and `paired_difference` serve it too.
    Raises DataError where a file is missing or a line is not such a row.
    """
    tasks = {name: _read(path) for name, path in _paths(Path(folder)).items()}
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


class MeanOfTasks:
    """The mean Spearman of several tasks whose rows are numbered through, task after task."""

    def __init__(self, parts: list[SpearmanOfUnits]) -> None:
        self.parts = parts
        self.bounds = np.cumsum([0, *(len(part.gold) for part in parts)])

    def __call__(self, indices: np.ndarray) -> float:
        ordered = np.sort(indices)
        edges = np.searchsorted(ordered, self.bounds)
        found = [
            part(ordered[low:high] - start) if high > low else float("nan")
            for part, start, low, high in zip(self.parts, self.bounds, edges, edges[1:], strict=False)
        ]
        return float(np.mean(found))


def _paths(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.jsonl" for name in STS_TASKS}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} not found. STS7 needs all seven: "
            f"{', '.join(path.name for path in paths.values())}."
        )
    return paths


def _read(path: Path) -> list[tuple[str, str, float]]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                rows.append((str(row["sentence1"]), str(row["sentence2"]), float(row["score"])))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}, line {number}: not a JSON object with sentence1, sentence2 and a numeric score "
                    f"({type(error).__name__}: {error})."
                ) from error
    if not rows:
        raise DataError(f"{path}: no rows.")
    return rows
