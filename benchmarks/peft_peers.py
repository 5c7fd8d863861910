"""Run many LoRA adapters over one base with PEFT, for comparison in `throughput`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

ROWS = 64  # rows a batch
NAMES = [f"domain{number}" for number in range(64)]


class PeftPeers:
    """64 LoRA adapters in bf16. Rows are sorted by length as sentence-transformers does, and padded, 64 a batch.

    LoRA sits at all linear layers of the encoder. The row at place n of a batch has adapter n.

    Args:
        texts: what is encoded.
        weights: an adapter's size; the rank follows from it.
        device: of the model.
    """

    def __init__(self, texts: Sequence[str], weights: int, device: str) -> None:
        from peft import LoraConfig, get_peft_model
        from sentence_transformers import SentenceTransformer

        from scions.store import resolve_base

        self.texts = texts
        self.base = SentenceTransformer(resolve_base(), device=device, model_kwargs={"dtype": torch.bfloat16})
        network: Any = self.base[0].auto_model
        linear = {
            name: module
            for name, module in network.named_modules()
            if name.startswith("encoder.layer.") and isinstance(module, torch.nn.Linear)
        }
        self.rank = round(weights / sum(module.in_features + module.out_features for module in linear.values()))
        # PEFT's usual start leaves the base as it is; this one is random.
        config = LoraConfig(r=self.rank, target_modules=sorted(linear), init_lora_weights=False)
        torch.manual_seed(0)
        self.model = get_peft_model(network, config, adapter_name=NAMES[0])
        for name in NAMES[1:]:
            self.model.add_adapter(name, config)
        self.model.to(torch.bfloat16).eval()

    def mixed(self, rows: Sequence[int]) -> np.ndarray:
        """One pass a batch, PEFT's ``adapter_names`` telling the adapter of each row."""
        return self._encode(rows, self._mixed)

    def swapped(self, rows: Sequence[int]) -> np.ndarray:
        """In each batch one adapter after another is made the active one, for its row."""
        return self._encode(rows, self._swapped)

    def _encode(self, rows: Sequence[int], run: Any) -> np.ndarray:
        order = sorted(range(len(rows)), key=lambda place: -len(self.texts[rows[place]]))
        result = np.empty((len(rows), int(self.base.get_embedding_dimension() or 0)), np.float32)
        with torch.inference_mode():
            for first in range(0, len(order), ROWS):
                part = order[first : first + ROWS]
                result[part] = run([self.texts[rows[place]] for place in part])
        return result

    def _mixed(self, texts: list[str]) -> np.ndarray:
        return self._vectors(texts, adapter_names=NAMES[: len(texts)])

    def _swapped(self, texts: list[str]) -> np.ndarray:
        found = []
        for text, name in zip(texts, NAMES, strict=False):
            self.model.set_adapter(name)
            found.append(self._vectors([text]))
        return np.concatenate(found)

    def _vectors(self, texts: list[str], **options: Any) -> np.ndarray:
        given = self.base.preprocess(texts)
        features: dict[str, Any] = {key: given[key].to(self.base.device) for key in ("input_ids", "attention_mask")}
        features["token_embeddings"] = self.model(**features, **options).last_hidden_state
        for module in list(self.base)[1:]:
            features = module(features)
        return features["sentence_embedding"].float().cpu().numpy()
