"""What tests of several rooms share: no network, and a base so small that it is built on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

WORDS = """
    a the of and to in court contract party shall claim damages judge law clause seller buyer patient dose drug
    fever treatment doctor trial cell protein engine valve pump battery motor device signal network model data
""".split()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random SentenceTransformer: BERT of width 32 with two layers, mean pooling, normalised."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    home = tmp_path_factory.mktemp("tiny")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters), *".,:;-?!", *WORDS]
    vocabulary = home / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    network, tokenizer = home / "network", BertTokenizerFast(str(vocabulary))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.2,  # at the usual 0.02 all random vectors would nearly be one
        )
        BertModel(config).save_pretrained(network)
    tokenizer.save_pretrained(network)
    transformer = Transformer(str(network), max_seq_length=64)
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean"), Normalize()], device="cpu")
    folder = home / "tiny-base"
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(autouse=True)
def adapters_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The default place of adapters is this test's own."""
    root = tmp_path / "adapters"
    monkeypatch.setenv("SCIONS_ADAPTERS", str(root))
    yield root
