from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from scions.store import load_base


@pytest.fixture(autouse=True)
def _few_threads(one_thread: None) -> None:
    """Matrices this small are only slowed down by a second thread."""


@pytest.fixture
def encoder(tiny_base: Path) -> SentenceTransformer:
    return load_base(tiny_base, device="cpu")


@pytest.fixture
def publish_on(a_manifest: Callable[..., Any], adapters_aside: Path) -> Callable[..., SentenceTransformer]:
    """Write the folder of an adapter of any base, far from the identity; returns the plain model it is active in."""

    def make(base: Path, name: str, config: Any, seed: int = 1, **changes: Any) -> SentenceTransformer:
        model = load_base(base, device="cpu")
        model.add_adapter(config, "default")
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for key, parameter in model[0].auto_model.named_parameters():
            if ".default." in key:
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
                tensors["base_model.model." + key.replace(".default.", ".")] = parameter.data.clone()
        folder = adapters_aside / name
        folder.mkdir(parents=True, exist_ok=True)
        kind = getattr(config.peft_type, "value", config.peft_type)
        content = {**config.to_dict(), "peft_type": kind}
        (folder / "adapter_config.json").write_text(json.dumps(content, default=sorted))
        save_file(tensors, folder / "adapter_model.safetensors")
        given = {"method": "lora" if kind == "LORA" else config.placement, "max_length": 64} | changes
        (folder / "scions.json").write_text(a_manifest(base, name, **given).to_json())
        return model.eval()

    return make
