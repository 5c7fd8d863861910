"""The PEFT path as an engine, for architectures that the packed loop does not cover: one adapter after another."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scions.adapters.peft_type import FILE_PREFIX
from scions.encoder.base_info import group_rows
from scions.encoder.read_adapter import AdapterFolder
from scions.engine.adapter_weights import AdapterWeights
from scions.errors import AdapterError

_STRENGTHS_KEPT = 4
_SCALED = (".bottleneck_up.", ".lora_B.")
_UNTOUCHED = (".bottleneck_down.", ".lora_A.")
_MIXED = ".bottleneck_norm."


class SharedModel:
    """An adapter in a model of its own, whose base tensors are the base's: only the modules around them are copied.

    At a strength other than 1 there is one more such model, with the adapter's tensors scaled; the last few are kept.
    """

    def __init__(self, model: Any, name: str, config: Any, tensors: Mapping[str, Tensor]) -> None:
        self._name, self._config, self._tensors = name, config, dict(tensors)
        self._models: OrderedDict[float, Any] = OrderedDict()
        self.at(model, 1.0)

    def at(self, model: Any, strength: float) -> Any:
        """The model with the adapter at that strength. Not for two threads at once."""
        found = self._models.get(strength)
        if found is None:
            from scions.encoder.inject import inject_adapter

            tensors = self._tensors if strength == 1 else self._scaled(model, strength)
            config = {**self._config.to_dict(), "peft_type": _kind(self._config)}
            found = sharing(model)
            inject_adapter(found, self._name, config, tensors)
            self._models[strength] = found
            if len(self._models) > _STRENGTHS_KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(strength)
        return found

    def placed_on(self, model: Any) -> SharedModel:
        """The same in a model whose base tensors have moved."""
        return SharedModel(model, self._name, self._config, self._tensors)

    def _scaled(self, model: Any, strength: float) -> dict[str, Tensor]:
        base = dict(model[0].auto_model.named_parameters())
        scaled = {}
        for key, tensor in self._tensors.items():
            if any(part in key for part in _SCALED):
                scaled[key] = tensor * strength
            elif _MIXED in key:
                own = base[key.removeprefix(FILE_PREFIX).replace(_MIXED, ".")].detach().to("cpu", tensor.dtype)
                scaled[key] = torch.lerp(own, tensor, strength)
            elif any(part in key for part in _UNTOUCHED):
                scaled[key] = tensor
            else:
                raise AdapterError(
                    f"adapter {self._name!r} can only be used at strength 1 here: it is not known how {key} scales"
                )
        return scaled


class PeftEngine:
    """Runs rows in groups of one adapter and strength, padded, one thread at a time."""

    name = "peft"

    def __init__(self, model: Any, dtype: torch.dtype, lock: Any) -> None:
        self.model, self.dtype, self.lock = model, dtype, lock

    def prepare(self, published: AdapterFolder) -> AdapterWeights:
        """An adapter ready for `vectors`. Raises AdapterError where the base has no place for it."""
        with self.lock:
            shared = SharedModel(self.model, published.name, published.config, published.tensors)
        size = sum(tensor.nbytes for tensor in published.tensors.values())
        return AdapterWeights(**published.described(), bytes=size, shared=shared)

    def moved(self, weights: AdapterWeights) -> AdapterWeights:
        """``weights`` where the base is now."""
        with self.lock:
            return replace(weights, shared=weights.shared.placed_on(self.model))

    def autocast(self) -> Any:
        """The engine's precision, as a context."""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def vectors(
        self,
        token_ids: Sequence[Sequence[int]],
        adapters: Sequence[AdapterWeights | None],
        strengths: Sequence[float],
        prompt_lengths: Sequence[int],
    ) -> Tensor:
        """``[rows, dimensions]`` float32, in the order given; see `DomainEncoder.encode_rows`."""
        groups = group_rows(
            (0, 1.0, length) if adapter is None else (id(adapter), strength, length)
            for adapter, strength, length in zip(adapters, strengths, prompt_lengths, strict=True)
        )
        parts = []
        with self.lock, torch.inference_mode(), self.autocast():
            for (_, strength, length), rows in groups.items():
                adapter = adapters[rows[0]]
                model = self.model if adapter is None else adapter.shared.at(self.model, strength)
                ids = {"input_ids": [list(token_ids[i]) for i in rows]}
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


def sharing(model: Any) -> Any:
    """A SentenceTransformer with modules of its own around the same tensors."""
    from sentence_transformers import SentenceTransformer

    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    processor = getattr(model[0], "processor", None)
    memo[id(processor)] = processor
    modules = [copy.deepcopy(module, memo) for module in model]
    return SentenceTransformer(modules=modules, device=str(model.device)).eval()


def _kind(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))
