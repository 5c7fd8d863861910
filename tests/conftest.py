"""What tests of several rooms share: no network, and a base so small that it is built on the spot."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

WORDS = """
    a the of and to in court contract party shall claim damages judge law clause seller buyer patient dose
    drug fever treatment doctor trial cell protein engine valve pump battery motor device signal network model
    data
""".split()  # noqa: SIM905


@pytest.fixture(autouse=True, scope="session")
def _handle_sigint():
    """Handle SIGINT, also in child processes: a shell starts background jobs with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


KINDS = ("bert", "roberta", "distilbert", "mpnet", "electra", "modernbert", "qwen3")


@pytest.fixture(scope="session")
def tiny_model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a random two-layer SentenceTransformer of one of `KINDS`, of width 32, built when first asked for."""
    built: dict[str, Path] = {"bert": tiny_base}

    def make(kind: str) -> Path:
        if kind not in built:
            built[kind] = _build(kind, tiny_base, tmp_path_factory.mktemp(kind))
        return built[kind]

    return make


def _build(kind: str, tiny_base: Path, home: Path) -> Path:
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 2, "eos_token_id": 3}
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "initializer_range": 0.2,
    }
    more = {
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "electra": {"embedding_size": 16},
        "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "global_attn_every_n_layers": 2},
        "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    }
    names = {
        "roberta": "Roberta",
        "distilbert": "DistilBert",
        "mpnet": "MPNet",
        "electra": "Electra",
        "modernbert": "ModernBert",
        "qwen3": "Qwen3",
    }
    if kind == "distilbert":
        sizes = {name: sizes[name] for name in ("vocab_size", "max_position_embeddings", "initializer_range")}
    config = getattr(transformers, f"{names[kind]}Config")(**sizes, **special, **more.get(kind, {}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{names[kind]}Model")(config).save_pretrained(home / "network")
    tokenizer.save_pretrained(home / "network")
    pooling = Pooling(32, "lasttoken" if kind == "qwen3" else "mean")
    transformer = Transformer(str(home / "network"), max_seq_length=64)
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    model.save_pretrained(str(home / f"tiny-{kind}"), create_model_card=False)
    return home / f"tiny-{kind}"


@pytest.fixture(autouse=True)
def adapters_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default place of adapters is this test's own."""
    root = tmp_path / "adapters"
    monkeypatch.setenv("SCIONS_ADAPTERS", str(root))
    return root


@pytest.fixture(autouse=True)
def _few_threads(one_thread: None) -> None:
    """Matrices this small are only slowed down by a second thread (`tests/serving` overrides this)."""


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def publish_adapter(tiny_base: Path, adapters_aside: Path) -> Callable[..., tuple[Path, Any]]:
    """Write the folder of an adapter whose weights are far from the identity; returns it and the model it came from.

    ``on``: the folder of its base; else the tiny BERT. ``changes``: fields of its manifest.
    """

    def make(
        name: str = "legal", config: Any = None, seed: int = 1, on: Path | None = None, **changes: Any
    ) -> tuple[Path, Any]:
        import torch
        from safetensors.torch import save_file

        from scions import BottleneckConfig
        from scions.store import load_base

        base = on or tiny_base
        model = load_base(base, device="cpu")
        given = config or BottleneckConfig(rank=3)
        model.add_adapter(given, "default")
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for key, parameter in model[0].auto_model.named_parameters():
            if ".default." in key:
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
                tensors["base_model.model." + key.replace(".default.", ".")] = parameter.data.clone()
        model.eval()
        folder = adapters_aside / name
        folder.mkdir(parents=True, exist_ok=True)
        kind = getattr(given.peft_type, "value", given.peft_type)
        content = {**given.to_dict(), "peft_type": kind}
        (folder / "adapter_config.json").write_text(json.dumps(content, default=sorted))
        save_file(tensors, folder / "adapter_model.safetensors")
        method = {"method": "lora" if kind == "LORA" else given.placement}
        (folder / "scions.json").write_text(_manifest(base, name, **(method | changes)).to_json())
        return folder, model

    return make


@pytest.fixture
def a_manifest() -> Callable[..., Any]:
    return _manifest


def _manifest(folder: Path, name: str, /, **changes: Any) -> Any:
    from scions.store import Base, DataRecord, Initialization, Manifest, base_fingerprint

    values: dict[str, Any] = {
        "name": name,
        "base": Base(
            id=str(folder), weights_sha256=base_fingerprint(folder), architecture="bert", hidden_size=32, layers=2
        ),
        "method": "houlsby",
        "placement": {},
        "rank": 3,
        "trainable_parameters": 10,
        "trainable_share": 0.036,
        "initialisation": Initialization(seed=0, id="0"),
        "data": DataRecord(source="legal.jsonl", fingerprint="0", shape="pairs", rows={"train": 8}),
        "pooling": "mean",
        "max_length": 16,
        "seed": 0,
        "space_fingerprint": "0",
    }
    return Manifest(**(values | changes))


APART = ("court", "fever", "engine")  # words whose texts `told_apart` tells from each other and from the rest


@pytest.fixture(scope="session")
def told_apart(tiny_base: Path) -> dict[str, Any]:
    """Domain statistics under the tiny base, by word of `APART`: texts of that word alone fit, others do not."""
    import numpy as np

    from scions.store import DomainStatistics, load_base

    model = load_base(tiny_base, device="cpu")
    vectors = np.asarray(model.encode([*APART, "the model"], normalize_embeddings=True), dtype=np.float64)
    found = {}
    for word, dual in zip(APART, np.linalg.pinv(vectors).T, strict=False):  # dual @ vector: 1 for its own, else 0
        scale = 1 / (dual @ dual)
        found[word] = DomainStatistics(mean=(scale * dual).tolist(), spherical_variance=float(scale) / 40, n=3)
    return found


@pytest.fixture
def encoder(tiny_base: Path) -> Any:
    """The tiny base as a SentenceTransformer."""
    from scions.store import load_base

    return load_base(tiny_base, device="cpu")


@pytest.fixture
def publish_on(publish_adapter: Callable[..., tuple[Path, Any]]) -> Callable[..., Any]:
    """`publish_adapter` for any base, with texts as long as its own; returns the plain model it is active in."""

    def make(base: Path, name: str, config: Any, seed: int = 1, **changes: Any) -> Any:
        return publish_adapter(name, config, seed, on=base, **({"max_length": 64} | changes))[1]

    return make


class Planted:
    """An encoder that gives each text the vector planted for it, and remembers every call."""

    def __init__(self, vectors: dict[str, Any]) -> None:
        import numpy as np

        self.vectors = {text: np.asarray(vector, dtype=np.float32) for text, vector in vectors.items()}
        self.calls: list[Any] = []

    def encode(self, sentences: list[str], **kwargs: Any) -> Any:
        import numpy as np

        self.calls.append((list(sentences), kwargs))
        return np.stack([self.vectors[text] for text in sentences])


@pytest.fixture
def planted() -> type[Planted]:
    return Planted
