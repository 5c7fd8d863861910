"""A base's layers as plain tensors for inference: queries, keys and values joined, precision converted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from scions.adapters.architectures import Architecture, architecture_of
from scions.engine.prepacked import PrepackedWeight

# The projections of a layer, by their names in `Architecture`.
PROJECTIONS = ("query", "key", "value", "attention", "feedforward_input", "feedforward")
_NORMS = ("attention_norm", "feedforward_norm")


class LayerModules(NamedTuple):
    """The modules of one layer, by their names in `Architecture`."""

    query: Any
    key: Any
    value: Any
    attention: Any
    feedforward_input: Any
    feedforward: Any
    attention_norm: Any
    feedforward_norm: Any
    activation: Any
    attention_dropout: Any
    feedforward_dropout: Any
    output_dropout: Any = None

    @classmethod
    def of(cls, architecture: Architecture, layer: nn.Module) -> LayerModules:
        """Return the modules of ``layer``. Raises AttributeError where one is missing."""
        paths = [path for name in cls._fields if (path := getattr(architecture, name)) is not None]
        return cls(*attrgetter(*paths)(layer))


def engine_architecture(network: Any) -> Architecture | None:
    """Return the architecture of a transformers model, None where the engine does not run it."""
    architecture = architecture_of(network)
    return architecture if architecture is not None and architecture.query else None


def layer_list(architecture: Architecture, network: Any) -> list[nn.Module]:
    """Return the layers of a transformers model. Raises AttributeError where it has none."""
    return list(network.get_submodule(architecture.layer.removesuffix(".{n}")))


@dataclass(frozen=True)
class LayerWeights:
    """One layer: its projections, with queries, keys and values in ``joined``, and its norms ``[width]``.

    ``activation`` None: exact GELU, which is fused into the product of ``feedforward_input``.
    """

    joined: PrepackedWeight
    attention: PrepackedWeight
    attention_norm: tuple[Tensor, Tensor, float]
    feedforward_input: PrepackedWeight
    activation: Callable[[Tensor], Tensor] | None
    feedforward: PrepackedWeight
    feedforward_norm: tuple[Tensor, Tensor, float]


@dataclass(frozen=True)
class BaseLayers:
    """All layers of a base, their projections in ``dtype``.

    On a CPU norms stay in float32 for every ``dtype``: that costs nothing there and keeps digits. ``projections`` maps
    the name of a module to its layer and which of `PROJECTIONS` it is, ``norms`` to its layer and the projection before
    it (``attention`` or ``feedforward``).
    """

    layers: tuple[LayerWeights, ...]
    heads: int
    dtype: torch.dtype
    projections: dict[str, tuple[int, str]]
    norms: dict[str, tuple[int, str]]

    @property
    def device(self) -> torch.device:
        """The device of the layers."""
        return self.layers[0].joined.weight.device

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        return self.layers[0].joined.weight.shape[1]

    @property
    def norm_dtype(self) -> torch.dtype:
        """The precision of norms."""
        return self.layers[0].attention_norm[0].dtype


def read_base_layers(network: Any, dtype: torch.dtype) -> BaseLayers | None:
    """Return the layers of a transformers model, None where a part is not the plain module expected there.

    In float32 most tensors are shared with the network; otherwise they are copies, and the network keeps its weights.
    """
    architecture = engine_architecture(network)
    if architecture is None:
        return None
    try:
        layers = [LayerModules.of(architecture, layer) for layer in layer_list(architecture, network)]
    except AttributeError:
        return None
    if not layers or not all(map(_is_plain, layers)):
        return None
    projections: dict[str, tuple[int, str]] = {}
    norms: dict[str, tuple[int, str]] = {}
    for n in range(len(layers)):
        prefix = architecture.layer.format(n=n)
        projections |= {f"{prefix}.{getattr(architecture, name)}": (n, name) for name in PROJECTIONS}
        norms |= {f"{prefix}.{getattr(architecture, name)}": (n, name.removesuffix("_norm")) for name in _NORMS}
    weights = tuple(_layer_weights(layer, dtype) for layer in layers)
    return BaseLayers(weights, int(network.config.num_attention_heads), dtype, projections, norms)


def weights_version(network: nn.Module) -> list[int]:
    """Return numbers that change whenever a weight is moved, replaced or written in place (a training step)."""
    version: list[int] = []
    # Called for every batch: `parameters()` takes three times as long.
    modules: list[nn.Module] = [network]
    while modules:
        module = modules.pop()
        for parameter in module._parameters.values():
            if parameter is not None:
                version += (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
        modules += [child for child in module._modules.values() if child is not None]
    return version


def _is_plain(layer: LayerModules) -> bool:
    linears, norms = layer[: len(PROJECTIONS)], (layer.attention_norm, layer.feedforward_norm)
    return all(type(linear) is nn.Linear and linear.bias is not None for linear in linears) and all(
        type(norm) is nn.LayerNorm and norm.weight is not None and norm.bias is not None for norm in norms
    )


@torch.no_grad()
def _layer_weights(layer: LayerModules, dtype: torch.dtype) -> LayerWeights:
    norm_dtype = torch.float32 if layer.query.weight.device.type == "cpu" else dtype

    def norm(module: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
        return module.weight.detach().to(norm_dtype), module.bias.detach().to(norm_dtype), float(module.eps)

    return LayerWeights(
        PrepackedWeight.of(layer.query, layer.key, layer.value, dtype=dtype),
        PrepackedWeight.of(layer.attention, dtype=dtype),
        norm(layer.attention_norm),
        PrepackedWeight.of(layer.feedforward_input, dtype=dtype),
        None if _is_gelu(layer.activation) else layer.activation,
        PrepackedWeight.of(layer.feedforward, dtype=dtype),
        norm(layer.feedforward_norm),
    )


def _is_gelu(activation: Any) -> bool:
    return type(activation) in (nn.GELU, GELUActivation) and "tanh" not in str(getattr(activation, "approximate", ""))
