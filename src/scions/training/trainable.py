"""Make parameters trainable: an adapter inside a frozen base, or the whole base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from torch import nn

from scions.adapters.config import BottleneckConfig
from scions.adapters.placement import count_layers, find_sites, rank_for_share
from scions.errors import AdapterError, UsageError

DEFAULT_SHARE = 0.036


@dataclass
class TrainableParameters:
    """The parameters that a method trains.

    ``share`` is relative to the base's parameters; ``rank`` is 0 for full; ``first_layer`` is the lowest layer with
    trained parameters, 0 also where the embeddings are trained.
    """

    parameters: dict[str, nn.Parameter]
    share: float
    rank: int
    first_layer: int = 0

    @property
    def count(self) -> int:
        """Return the number of trained values."""
        return sum(p.numel() for p in self.parameters.values())


def make_trainable(
    model: SentenceTransformer,
    method: str,
    trainable_share: float | None = None,
    rank: int | None = None,
    layers: int | None = None,
) -> TrainableParameters:
    """Add an adapter named ``default`` to ``model``, or make all of it trainable (``full``).

    ``default`` is the only name under which sentence-transformers' trainer can resume.

    Raises:
        UsageError: both share and rank, an option that the method does not have, a share too small, too many layers.
        AdapterError: the architecture is not supported by the method.
    """
    if trainable_share is not None and rank is not None:
        raise UsageError("give either `trainable_share=...` or `rank=...`, not both")
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be at least 1, got {rank}")
    total = sum(p.numel() for p in model.parameters())
    share = DEFAULT_SHARE if trainable_share is None else trainable_share
    if method == "full":
        if rank is not None or trainable_share is not None or layers is not None:
            raise UsageError("method 'full' trains every parameter: it takes no rank, share or layers")
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return TrainableParameters(parameters, sum(p.numel() for p in parameters.values()) / total, 0)
    if not 0 < share < 1:
        raise UsageError(f"the trainable share must lie between 0 and 100 %, got {share:.1%}")
    transformer: Any = model[0].auto_model
    if layers is not None and layers > count_layers(transformer):
        raise UsageError(f"`layers={layers}`, but the model has only {count_layers(transformer)} layers")
    # Modules after the transformer (a Dense, say) stay frozen too: an adapter's file cannot hold them.
    model.requires_grad_(False)
    if method == "lora":
        config, used = _lora(transformer, total, share, rank, layers)
    else:
        config, used = _bottleneck(transformer, total, method, share, rank, layers)
    # LoRA draws its first weights from torch's global state: a fixed seed makes them equal for all adapters of a base.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.add_adapter(config, "default")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    first = 0 if layers is None else count_layers(transformer) - layers
    return TrainableParameters(parameters, sum(p.numel() for p in parameters.values()) / total, used, first)


def _bottleneck(
    transformer: nn.Module, total: int, method: str, share: float, rank: int | None, layers: int | None
) -> tuple[Any, int]:
    config = BottleneckConfig(placement=method, layers=layers, rank=rank or 1)
    if rank is None:
        inside = sum(p.numel() for p in transformer.parameters())
        find_sites(transformer, config)  # an error after this one is due to the share
        try:
            config.rank = rank_for_share(transformer, config, share * total / inside)
        except AdapterError as error:
            raise UsageError(str(error)) from error
    return config, config.rank


def _lora(transformer: nn.Module, total: int, share: float, rank: int | None, layers: int | None) -> tuple[Any, int]:

    sites = find_sites(transformer, BottleneckConfig(placement="houlsby", layers=layers))
    linear = {
        name: module
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and any(name.startswith(layer + ".") for layer in sites.layers)
    }
    per_rank = sum(module.in_features + module.out_features for module in linear.values())
    if rank is None:
        rank = int(share * total // per_rank)
        if rank < 1:
            raise UsageError(f"a share of {share:.2%} is too small for LoRA: rank 1 takes {per_rank / total:.2%}")
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=sorted(linear), lora_dropout=0.0), rank
