"""Encode rows through PEFT, one adapter after another, for architectures that the packed loop does not cover."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from scions.adapters.peft_type import FILE_PREFIX
from scions.encoder.base_info import rows_by_key
from scions.encoder.inject import inject_adapter
from scions.encoder.row_engine import RowBatch, RowEngine
from scions.engine.adapter_weights import AdapterWeights
from scions.errors import AdapterError
from scions.store.registry import PublishedAdapter

_MAX_STRENGTHS = 4
# Parts of an adapter's tensor names: multiplied by the strength, left as they are, mixed with the base's own.
_SCALED = (".bottleneck_up.", ".lora_B.")
_UNSCALED = (".bottleneck_down.", ".lora_A.")
_MIXED = ".bottleneck_norm."


class SharedModel:
    """An adapter in a model of its own, whose base tensors are the base's: only the modules around them are copied.

    Each strength other than 1 has its own such model, with the adapter's tensors scaled; the last few are cached.
    """

    def __init__(self, model: SentenceTransformer, published: PublishedAdapter) -> None:
        self.published = published
        self._models: OrderedDict[float, SentenceTransformer] = OrderedDict()
        self.at(model, 1.0)

    def at(self, model: SentenceTransformer, strength: float) -> SentenceTransformer:
        """Return the model with the adapter at that strength. Not for two threads at once."""
        adapted = self._models.get(strength)
        if adapted is None:
            published = self.published
            tensors = published.tensors if strength == 1 else self._scaled(model, strength)
            adapted = sharing(model)
            inject_adapter(adapted, published.name, published.config, tensors)
            self._models[strength] = adapted
            if len(self._models) > _MAX_STRENGTHS:
                self._models.popitem(last=False)
        self._models.move_to_end(strength)
        return adapted

    def _scaled(self, model: SentenceTransformer, strength: float) -> dict[str, Tensor]:
        base = dict(model[0].auto_model.named_parameters())
        scaled = {}
        for key, tensor in self.published.tensors.items():
            if any(part in key for part in _SCALED):
                scaled[key] = tensor * strength
            elif _MIXED in key:
                of_base = base[key.removeprefix(FILE_PREFIX).replace(_MIXED, ".")].detach().to("cpu", tensor.dtype)
                scaled[key] = torch.lerp(of_base, tensor, strength)
            elif any(part in key for part in _UNSCALED):
                scaled[key] = tensor
            else:
                raise AdapterError(
                    f"adapter {self.published.name!r} can only be used at strength 1 here: it is not known how {key} "
                    "scales"
                )
        return scaled


class PeftEngine(RowEngine):
    """Run rows in groups of one adapter and strength, padded, one thread at a time under ``lock``."""

    name = "peft"

    def __init__(self, model: SentenceTransformer, dtype: torch.dtype, deterministic: bool, lock: Any) -> None:
        super().__init__(model, dtype, deterministic)
        self.lock = lock

    def prepare(self, published: PublishedAdapter) -> AdapterWeights:
        with self.lock:
            shared = SharedModel(self.model, published)
        size = sum(tensor.nbytes for tensor in published.tensors.values())
        return AdapterWeights.of(published, bytes=size, shared=shared)

    def moved(self, weights: AdapterWeights) -> AdapterWeights:
        with self.lock:
            return replace(weights, shared=SharedModel(self.model, weights.shared.published))

    def autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = torch.autocast(
            self.model.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16
        )
        return context

    def encode_batch(self, batch: RowBatch) -> Tensor:
        groups = rows_by_key(
            (0, 1.0, length) if adapter is None else (id(adapter), strength, length)
            for adapter, strength, length in zip(*batch[1:], strict=True)
        )
        parts = []
        with self.lock, torch.inference_mode(), self.autocast():
            for (_, strength, length), rows in groups.items():
                adapter = batch.adapters[rows[0]]
                model = self.model if adapter is None else adapter.shared.at(self.model, strength)
                ids = {"input_ids": [list(batch.token_ids[i]) for i in rows]}
                padded = self.model.tokenizer.pad(ids, return_tensors="pt")
                features: dict[str, Any] = {
                    key: padded[key].to(self.model.device) for key in ("input_ids", "attention_mask")
                }
                # As the module's own preprocessing names it: texts become messages wherever there is a chat template.
                features["modality"] = "message" if "message" in self.model[0].modality_config else "text"
                if length:
                    features["prompt_length"] = length
                parts.append(model(features)["sentence_embedding"].float())
            result = torch.cat(parts)
            result[torch.tensor([i for rows in groups.values() for i in rows])] = torch.cat(parts)
            return result


def sharing(model: SentenceTransformer) -> SentenceTransformer:
    """Return a SentenceTransformer with modules of its own around the tensors of ``model``."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    processor = getattr(model[0], "processor", None)
    memo[id(processor)] = processor
    modules = [copy.deepcopy(module, memo) for module in model]
    return SentenceTransformer(modules=modules, device=str(model.device)).eval()
