"""Encode a batch of rows, each with its adapter, as packed tokens without padding."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from scions.encoder.inject import to_peft_config
from scions.encoder.row_engine import RowBatch, RowEngine
from scions.engine.adapted_forward import adapter_spans, order_by_adapter, run_adapted_layers
from scions.engine.adapter_weights import AdapterWeights, tensor_fields
from scions.engine.attention import PackedLayout
from scions.engine.forward import supports
from scions.engine.layers import BaseLayers, read_base_layers, weights_version
from scions.engine.read_layers import read_layers
from scions.engine.token_pooling import pool, poolable
from scions.errors import ScionsError
from scions.store.registry import PublishedAdapter


class PackedEngine(RowEngine):
    """Run many adapters in one batch over a copy of the base's layers, made anew when the base's weights change."""

    name = "packed"

    def __init__(self, model: SentenceTransformer, dtype: torch.dtype, deterministic: bool) -> None:
        super().__init__(model, dtype, deterministic)
        self._held: tuple[Any, BaseLayers] | None = None

    @classmethod
    def of(cls, model: SentenceTransformer, dtype: torch.dtype, deterministic: bool) -> PackedEngine | None:
        """Return the engine for ``model``, None where the packed loop does not cover its architecture."""
        if not supports(model) or not poolable(model) or read_base_layers(model[0].auto_model, dtype) is None:
            return None
        return cls(model, dtype, deterministic)

    def base_layers(self) -> BaseLayers:
        """Return the base's layers as they are now."""
        now = weights_version(self.model[0].auto_model)
        held = self._held
        if held is None or held[0] != now:
            base_layers = read_base_layers(self.model[0].auto_model, self.dtype)
            if base_layers is None:
                raise ScionsError(
                    "the encoder's layers are no longer the plain ones it was built with (was a PEFT adapter put into "
                    "them?); build a new DomainEncoder"
                )
            held = self._held = (now, base_layers)
        return held[1]

    def prepare(self, published: PublishedAdapter) -> AdapterWeights:
        config, base_layers = to_peft_config(published.config, published.name), self.base_layers()
        layers = read_layers(published.name, config, self.model[0].auto_model, base_layers, published.tensors)
        return AdapterWeights.of(published, **tensor_fields(layers, base_layers))

    def moved(self, weights: AdapterWeights) -> AdapterWeights:
        return weights.to(self.base_layers())

    def encode_batch(self, batch: RowBatch) -> Tensor:
        with torch.inference_mode():
            base_layers, device = self.base_layers(), self.model.device
            order = order_by_adapter(batch.adapters)
            ids, adapters, strengths = ([values[i] for i in order] for values in batch[:3])
            sizes = np.fromiter(map(len, ids), np.int64, len(ids))
            flat = np.fromiter(itertools.chain.from_iterable(ids), np.int64, int(sizes.sum()))
            spans = adapter_spans(adapters, strengths, sizes, device)
            layout = PackedLayout.of(torch.from_numpy(sizes).to(device))
            network = self.model[0].auto_model
            hidden = run_adapted_layers(network, base_layers, torch.from_numpy(flat).to(device), layout, spans)
            pooled = pool(self.model, hidden, layout, self.model.dtype)
            result = torch.empty_like(pooled)
            result[torch.from_numpy(order).to(device)] = pooled
            return result
