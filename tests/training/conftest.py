from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from scions.store import load_base

TOPICS = {
    "law": ["court", "contract", "party", "claim", "judge", "clause", "law", "damages"],
    "medicine": ["patient", "dose", "drug", "fever", "treatment", "doctor", "trial", "cell"],
    "machines": ["engine", "valve", "pump", "battery", "motor", "device", "signal", "network"],
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of general pairs instead of a thousand."""
    import scions.training.prepare as prepare

    pairs = [("the court of law", "a judge in the trial"), ("a pump", "the valve of the engine"), ("data", "a model")]
    monkeypatch.setattr(prepare, "drift_pairs", lambda: pairs)


@pytest.fixture
def model(tiny_base: Path) -> SentenceTransformer:
    return load_base(tiny_base, device="cpu")


def sentence(draw: random.Random, topic: str) -> str:
    first, second, third = draw.sample(TOPICS[topic], 3)
    article, between = draw.choice(["a", "the"]), draw.choice(["of", "in", "and"])
    return f"{article} {first} {between} {second} {third} {draw.randint(0, 999)}"


def rows_of(shape: str, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows in which texts of one topic belong together."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        topic, other = draw.sample(list(TOPICS), 2)
        one, two, three = sentence(draw, topic), sentence(draw, topic), sentence(draw, other)
        same = i % 2 == 0
        rows.append(
            {
                "texts": {"text": f"{one}. {two}. {sentence(draw, topic)}."},
                "pairs": {"anchor": one, "positive": two},
                "triplets": {"anchor": one, "positive": two, "negative": three},
                "scored": {"sentence1": one, "sentence2": two if same else three, "score": 4.5 if same else i % 7 / 7},
                "binary": {"sentence1": one, "sentence2": two if same else three, "label": int(same)},
                "labelled": {"text": one, "label": topic},
                "candidates": {"query": one, "positive": [two], "negative": [three, sentence(draw, other)]},
            }[shape]
        )
    return rows


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file (or, for retrieval, a BEIR folder) of a shape; returns its path."""

    def make(shape: str, n: int = 60, name: str = "data", seed: int = 0) -> Path:
        if shape == "retrieval":
            return _beir(tmp_path / name, n, seed)
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(shape, n, seed)))
        return path

    return make


def _beir(folder: Path, n: int, seed: int) -> Path:
    draw = random.Random(seed)
    (folder / "qrels").mkdir(parents=True)
    topics = [draw.choice(list(TOPICS)) for _ in range(n)]
    lines = {
        name: [json.dumps({"_id": f"{name}{i}", "text": sentence(draw, t)}) for i, t in enumerate(topics)]
        for name in "dq"
    }
    (folder / "corpus.jsonl").write_text("\n".join(lines["d"]) + "\n")
    (folder / "queries.jsonl").write_text("\n".join(lines["q"]) + "\n")
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(n))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


@pytest.fixture
def short(tiny_base: Path) -> dict[str, Any]:
    """Options of a training of a few steps."""
    return {"base": str(tiny_base), "rank": 2, "epochs": 2, "batch_size": 16}
