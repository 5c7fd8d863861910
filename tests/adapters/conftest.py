from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from scions.store import load_base


@pytest.fixture
def load(tiny_model: Callable[[str], Path]) -> Callable[[str], SentenceTransformer]:
    """A fresh tiny base of a kind."""
    return lambda kind: load_base(tiny_model(kind), device="cpu")
