from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scions.mixing.adapters import StoredAdapter, read_stored
from scions.store import DomainStatistics

TEXTS = {
    "legal": ["the court of law", "the judge and the clause", "a party to the contract shall claim damages"],
    "medical": ["the patient and the dose", "a doctor in the trial", "the fever of the patient", "a drug and a cell"],
    "engines": ["the engine and the valve", "a pump in the motor", "the battery of the device", "signal network"],
}


@pytest.fixture(scope="session")
def domains_of_base(tiny_base: Path) -> dict[str, DomainStatistics]:
    """Statistics of `TEXTS` under the tiny base."""
    from scions.store import load_base

    model = load_base(tiny_base, device="cpu")
    found = {}
    for name, texts in TEXTS.items():
        vectors = np.asarray(model.encode(texts, normalize_embeddings=True), dtype=np.float64)
        mean = vectors.mean(axis=0)
        variance = float(((vectors - mean) ** 2).mean())
        found[name] = DomainStatistics(mean=[float(x) for x in mean], spherical_variance=variance, n=len(texts))
    return found


@pytest.fixture
def publish(
    publish_adapter: Callable[..., tuple[Path, Any]], domains_of_base: dict[str, DomainStatistics]
) -> Callable[..., StoredAdapter]:
    """Publish a random adapter on the tiny base, with domain statistics where its name has some; returns it, read."""

    def make(name: str = "legal", seed: int = 1, **changes: Any) -> StoredAdapter:
        changes.setdefault("domain", domains_of_base.get(name))
        folder, _ = publish_adapter(name, seed=seed, **changes)
        return read_stored(folder)

    return make


@pytest.fixture
def three(publish: Callable[..., StoredAdapter]) -> list[StoredAdapter]:
    """legal, medical and engines."""
    return [publish(name, seed=seed) for seed, name in enumerate(TEXTS, 1)]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Forty pairs whose sides share a word."""
    law, medicine, machines = ["court", "claim", "judge", "law"], ["patient", "dose", "drug"], ["valve", "pump"]
    words = [*law, *medicine, *machines]
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"anchor": f"the {one} {number}", "positive": f"a {one} of the {other}"}
        for number, (one, other) in enumerate(zip(words * 5, words[1:] * 5, strict=False))
    ]
    path.write_text("\n".join(map(json.dumps, rows[:40])) + "\n")
    return path
