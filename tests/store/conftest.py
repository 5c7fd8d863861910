from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from scions.store import Base, DataRecord, DomainStatistics, Initialization, Manifest

BASE_SHA = "a" * 64


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    def make(**changes: Any) -> Manifest:
        values: dict[str, Any] = {
            "name": "legal",
            "base": Base(id="org/tiny", weights_sha256=BASE_SHA, architecture="bert", hidden_size=4, layers=2),
            "method": "houlsby",
            "placement": {"sites": ["attention", "feed_forward"]},
            "rank": 2,
            "trainable_parameters": 40,
            "trainable_share": 0.036,
            "initialisation": Initialization(seed=0, id="0123abcd"),
            "data": DataRecord(
                source="legal.jsonl",
                fingerprint="b" * 64,
                shape="pairs",
                rows={"train": 80, "dev": 10, "test": 20},
                truncated={"train": 3},
                notes=["2 duplicate rows dropped"],
            ),
            "pooling": "mean",
            "max_length": 256,
            "seed": 7,
            "space_fingerprint": "0123456789abcdef",
            "prompts": {"query": "q: "},
            "recipe": {"learning_rate": 3e-4, "epochs": 2},
            "scores": {"base": {"ndcg@10": [60.0, 55.5, 64.0]}, "verdict": "better"},
            "domain": DomainStatistics(mean=[0.0, 0.5, 1.0, -0.25], spherical_variance=0.5, n=80),
            "versions": {"scions": "0.1.0"},
            "created": "2026-01-31T12:00:00Z",
        }
        return Manifest(**(values | changes))

    return make


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"layer.0.down.weight": torch.randn(2, 4), "layer.0.up.weight": torch.randn(4, 2)}


@pytest.fixture
def make_adapter(
    tmp_path: Path, make_manifest: Callable[..., Manifest], tensors: dict[str, torch.Tensor]
) -> Callable[..., Path]:
    """Write a good adapter's folder under `tmp_path/adapters`."""

    def make(name: str = "legal", root: Path | None = None, **changes: Any) -> Path:
        folder = (root or tmp_path / "adapters") / name
        folder.mkdir(parents=True)
        config = {"peft_type": "BOTTLENECK", "base_model_name_or_path": "org/tiny"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "scions.json").write_text(make_manifest(name=name, **changes).to_json())
        return folder

    return make
