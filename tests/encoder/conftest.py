from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from scions.store import load_base


@pytest.fixture(autouse=True)
def _few_threads(one_thread: None) -> None:
    """Matrices this small are only slowed down by a second thread."""


@pytest.fixture
def encoder(tiny_base: Path) -> SentenceTransformer:
    return load_base(tiny_base, device="cpu")
