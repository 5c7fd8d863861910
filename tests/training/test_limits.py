"""A base whose tokenizer states no length: texts are cut at the positions of its network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

import scions
from scions.data import read
from scions.encoder import load_encoder
from scions.encoder.base_info import limit_of
from scions.evaluation import evaluate
from scions.store import load_base


@pytest.fixture
def unlimited(tiny_model, tmp_path) -> Path:
    """A RoBERTa with positions for 65 tokens (a table of 66) that nothing but its network tells."""
    folder = tmp_path / "unlimited"
    shutil.copytree(tiny_model("roberta"), folder)
    for name, keys in (
        ("tokenizer_config.json", ("model_max_length", "max_length")),
        ("sentence_bert_config.json", ("max_seq_length",)),
    ):
        path = folder / name
        if path.exists():
            settings = json.loads(path.read_text())
            path.write_text(json.dumps({key: value for key, value in settings.items() if key not in keys}))
    return folder


@pytest.fixture
def long_pairs(write, tmp_path) -> Path:
    """Pairs of texts of about 150 tokens."""
    rows = [json.loads(line) for line in write("pairs").read_text().splitlines()]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({key: f"{text} " * 20 for key, text in row.items()}) + "\n" for row in rows))
    return path


def test_training_and_evaluation_cut_at_the_positions(unlimited, long_pairs, adapters_aside):
    plain, base = SentenceTransformer(str(unlimited), device="cpu"), load_base(unlimited, device="cpu")
    assert plain.max_seq_length == 66  # the length of the table, of which the first place is padding's
    assert limit_of(plain) == base.max_seq_length == 65
    result = scions.train(long_pairs, "legal", base=str(unlimited), rank=2, epochs=1, batch_size=16, force=True)
    assert result.manifest.max_length == 65
    table = read(long_pairs)
    for name in ("legal", str(unlimited)):
        assert evaluate(load_encoder(name), table).scores
