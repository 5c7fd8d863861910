from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from scions.store import load_base


@pytest.fixture(autouse=True)
def _few_threads(one_thread: None) -> None:
    """Matrices this small are only slowed down by a second thread."""


@pytest.fixture
def encoder(tiny_base: Path) -> SentenceTransformer:
    return load_base(tiny_base, device="cpu")


@pytest.fixture
def publish_on(publish_adapter: Callable[..., tuple[Path, Any]]) -> Callable[..., SentenceTransformer]:
    """`publish_adapter` for any base, with texts as long as its own; returns the plain model it is active in."""

    def make(base: Path, name: str, config: Any, seed: int = 1, **changes: Any) -> SentenceTransformer:
        return publish_adapter(name, config, seed, on=base, **({"max_length": 64} | changes))[1]

    return make
