"""Find the modules of a model that an adapter wraps.

They are matched by whole module paths. Matching by suffix, as PEFT does by default, would let BERT's
``output.dense`` also match ``attention.output.dense``, and ``LayerNorm`` that of the embeddings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from scions.adapters.architectures import ARCHITECTURES, architecture_of
from scions.adapters.config import BottleneckConfig
from scions.adapters.peft_type import PREFIX
from scions.errors import AdapterError


@dataclass(frozen=True)
class Sites:
    """Full names of the modules that an adapter wraps, in the model's order.

    ``bottlenecks`` are output projections; ``norms`` are layer norms that are trained; ``inputs`` maps a parallel
    bottleneck to the projection whose input it reads; ``layers`` are the adapted layers.
    """

    bottlenecks: tuple[str, ...]
    norms: tuple[str, ...]
    inputs: dict[str, str]
    layers: tuple[str, ...] = ()


def find_sites(model: nn.Module, config: BottleneckConfig) -> Sites:
    """Return the modules of ``model`` that an adapter of ``config`` wraps.

    Raises:
        AdapterError: the architecture is unknown or nothing matches; the message lists the model's linear layers.
    """
    modules = dict(_named_modules(model))
    if config.target_modules is not None:
        return _named_targets(modules, config.target_modules)
    architecture = architecture_of(model)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if architecture is None:
        raise AdapterError(
            f"no placement is known for the architecture {model_type!r} (known: {', '.join(sorted(ARCHITECTURES))}). "
            f"Name the output projections with target_modules; {_linear_layers(modules)}"
        )
    parts = architecture.attention, architecture.feedforward
    head, tail = architecture.layer.split("{n}")
    pattern = re.compile(rf"^(?P<layer>(?:.*\.)?{re.escape(head)}(?P<n>\d+){re.escape(tail)})$")
    layers = sorted(
        (int(match["n"]), match["layer"])
        for match in map(pattern.match, modules)
        if match and all(f"{match['layer']}.{part}" in modules for part in parts)
    )
    if not layers:
        raise AdapterError(
            f"the model says it is {model_type!r}, but no layer named like {architecture.layer!r} with "
            f"{architecture.feedforward!r} is in it; {_linear_layers(modules)}"
        )
    if config.layers is not None:
        if config.layers > len(layers):
            raise AdapterError(f"`layers={config.layers}`, but the model has only {len(layers)} layers")
        layers = layers[-config.layers :]
    bottlenecks: list[str] = []
    norms: list[str] = []
    inputs: dict[str, str] = {}
    for _, layer in layers:
        if config.placement == "houlsby":
            bottlenecks.append(f"{layer}.{architecture.attention}")
            norms.append(f"{layer}.{architecture.attention_norm}")
        bottlenecks.append(f"{layer}.{architecture.feedforward}")
        norms.append(f"{layer}.{architecture.feedforward_norm}")
        if config.placement == "parallel":
            inputs[bottlenecks[-1]] = f"{layer}.{architecture.feedforward_input}"
    # ModernBERT's first attention norm is nn.Identity: it has nothing to train.
    trained = [
        name for name in norms if config.train_norms and getattr(_base(modules[name]), "weight", None) is not None
    ]
    return Sites(tuple(bottlenecks), tuple(trained), inputs, tuple(layer for _, layer in layers))


def count_layers(model: nn.Module) -> int:
    """Return the number of layers that can be adapted."""
    return len(find_sites(model, BottleneckConfig(placement="pfeiffer")).bottlenecks)


def rank_for_share(model: nn.Module, config: BottleneckConfig, share: float) -> int:
    """Return the largest rank whose trained tensors, norms included, are at most ``share`` of the model's parameters.

    Adapters that are in the model already are not counted.

    Raises:
        AdapterError: even rank 1 is above ``share``; the message names the smallest share that works.
    """
    modules = dict(_named_modules(model))
    total = sum(p.numel() for name, p in model.named_parameters() if PREFIX not in name)
    sites = find_sites(model, config)
    fixed = sum(p.numel() for name in sites.norms for p in _base(modules[name]).parameters(recurse=False))
    per_rank = 0
    for name in sites.bottlenecks:
        width_in, width_out = site_width(modules, sites, name)
        per_rank += width_in + width_out + 1
        fixed += width_out
    rank = int((share * total - fixed) // per_rank)
    if rank < 1:
        smallest = (fixed + per_rank) / total
        raise AdapterError(f"a trainable share of {share:.2%} is too small here: rank 1 takes {smallest:.2%}")
    return rank


def site_width(modules: dict[str, nn.Module], sites: Sites, name: str) -> tuple[int, int]:
    """Return input and output width of the bottleneck at ``name``."""
    projection = _base(modules[name])
    width_out = int(projection.out_features)
    if name in sites.inputs:
        return int(_base(modules[sites.inputs[name]]).in_features), width_out
    return width_out, width_out


_INNER = re.compile(r"\.(base_layer|bottleneck_\w+|lora_\w+)(\.|$)")


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    # Modules that a tuner put inside a wrapped one are no sites.
    return [(name, module) for name, module in model.named_modules() if not _INNER.search(name)]


def _base(module: nn.Module) -> nn.Module:
    while hasattr(module, "base_layer"):
        module = module.base_layer
    return module


def _named_targets(modules: dict[str, nn.Module], targets: str | list[str]) -> Sites:
    if isinstance(targets, str):
        names = [name for name in modules if re.fullmatch(targets, name)]
        missing = [] if names else [targets]
    else:
        names = [name for name in modules if name in set(targets)]
        missing = sorted(set(targets) - set(names))
    wrong = [name for name in names if not hasattr(_base(modules[name]), "out_features")]
    if missing or wrong:
        raise AdapterError(
            f"target_modules: {'no module is named ' + ', '.join(missing) if missing else ''}"
            f"{'not a linear layer: ' + ', '.join(wrong) if wrong else ''}; {_linear_layers(modules)}"
        )
    return Sites(tuple(names), (), {})


def _linear_layers(modules: dict[str, nn.Module]) -> str:
    names = [name for name, module in modules.items() if isinstance(_base(module), nn.Linear)]
    numbered = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return "linear layers found: " + (", ".join(numbered) or "none")
