"""A base's layers as plain tensors, ready for inference: queries, keys and values joined, precision changed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from scions.adapters.architectures import ARCHITECTURES
from scions.engine.prepacked import PrepackedWeight

# Projections of a layer, by what an adapter's tensors are filed under.
PROJECTIONS = ("query", "key", "value", "attention", "inner", "feedforward")


@dataclass(frozen=True)
class LayerWeights:
    """One layer: its projections, queries, keys and values ``joined``, and its norms ``[width]``.

    ``activation`` None: exact GELU, which comes with the inner projection.
    """

    joined: PrepackedWeight
    attention: PrepackedWeight
    attention_norm: tuple[Tensor, Tensor, float]
    inner: PrepackedWeight
    activation: Callable[[Tensor], Tensor] | None
    feedforward: PrepackedWeight
    feedforward_norm: tuple[Tensor, Tensor, float]


@dataclass(frozen=True)
class BaseLayers:
    """All layers, their projections in ``dtype``.

    On a CPU norms stay in float32 whatever ``dtype`` is: that costs nothing there and keeps digits.
    ``places`` says which layer and which of `PROJECTIONS` a module of the network is, ``norms`` which norm
    (``attention`` or ``feedforward``).
    """

    layers: tuple[LayerWeights, ...]
    heads: int
    dtype: torch.dtype
    places: dict[str, tuple[int, str]]
    norms: dict[str, tuple[int, str]]

    @property
    def device(self) -> torch.device:
        """Where the layers are."""
        return self.layers[0].joined.weight.device

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.layers[0].joined.weight.shape[1]

    @property
    def norm_dtype(self) -> torch.dtype:
        """The precision of norms."""
        return self.layers[0].attention_norm[0].dtype


@dataclass(frozen=True)
class _Names:
    query: str
    key: str
    value: str
    activation: str


_BERT = _Names("attention.self.query", "attention.self.key", "attention.self.value", "intermediate.intermediate_act_fn")
_NAMES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), _BERT),
    "distilbert": _Names("attention.q_lin", "attention.k_lin", "attention.v_lin", "ffn.activation"),
    "mpnet": _Names("attention.attn.q", "attention.attn.k", "attention.attn.v", "intermediate.intermediate_act_fn"),
}


def read_base_layers(network: Any, dtype: torch.dtype) -> BaseLayers | None:
    """The layers of a transformers model; None where one of its parts is not the plain module it should be.

    In float32 most tensors are the network's own; otherwise the network keeps its weights and these are copies.
    """
    kind = getattr(network.config, "model_type", None)
    if kind not in _NAMES:
        return None
    names, sites = _NAMES[kind], ARCHITECTURES[kind]
    container = sites.layer.removesuffix(".{n}")
    try:
        modules = list(network.get_submodule(container))
        found = [_modules(module, names, sites) for module in modules]
    except AttributeError:
        return None
    if not found or not all(_plain(parts) for parts in found):
        return None
    paths = (names.query, names.key, names.value, sites.attention, sites.feedforward_input, sites.feedforward)
    places: dict[str, tuple[int, str]] = {}
    norms: dict[str, tuple[int, str]] = {}
    for n in range(len(found)):
        prefix = f"{container}.{n}."
        places |= {prefix + path: (n, what) for path, what in zip(paths, PROJECTIONS, strict=True)}
        norms |= {prefix + sites.attention_norm: (n, "attention"), prefix + sites.feedforward_norm: (n, "feedforward")}
    layers = tuple(_layer(parts, dtype) for parts in found)
    return BaseLayers(layers, int(network.config.num_attention_heads), dtype, places, norms)


def weights_version(network: nn.Module) -> list[int]:
    """Changes whenever a weight does: moved, replaced, or written in place (a step of training)."""
    found: list[int] = []
    # Asked for every batch: `parameters()` takes three times as long.
    modules: list[nn.Module] = [network]
    while modules:
        module = modules.pop()
        for parameter in module._parameters.values():
            if parameter is not None:
                found += (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
        modules += [child for child in module._modules.values() if child is not None]
    return found


def _modules(layer: Any, names: _Names, sites: Any) -> dict[str, Any]:
    paths = {
        "query": names.query,
        "key": names.key,
        "value": names.value,
        "attention": sites.attention,
        "inner": sites.feedforward_input,
        "feedforward": sites.feedforward,
        "attention_norm": sites.attention_norm,
        "feedforward_norm": sites.feedforward_norm,
        "activation": names.activation,
    }
    return {what: attrgetter(path)(layer) for what, path in paths.items()}


def _plain(parts: dict[str, Any]) -> bool:
    linear = all(type(parts[name]) is nn.Linear and parts[name].bias is not None for name in PROJECTIONS)
    return linear and all(
        type(parts[name]) is nn.LayerNorm and parts[name].weight is not None and parts[name].bias is not None
        for name in ("attention_norm", "feedforward_norm")
    )


@torch.no_grad()
def _layer(parts: dict[str, Any], dtype: torch.dtype) -> LayerWeights:
    norm_dtype = torch.float32 if parts["query"].weight.device.type == "cpu" else dtype

    def norm(name: str) -> tuple[Tensor, Tensor, float]:
        module = parts[name]
        return module.weight.detach().to(norm_dtype), module.bias.detach().to(norm_dtype), float(module.eps)

    def linear(*names: str) -> PrepackedWeight:
        weights, biases = [parts[n].weight.detach() for n in names], [parts[n].bias.detach() for n in names]
        return PrepackedWeight(
            *(kept[0].to(dtype) if len(names) == 1 else torch.cat(kept).to(dtype) for kept in (weights, biases))
        )

    return LayerWeights(
        linear("query", "key", "value"),
        linear("attention"),
        norm("attention_norm"),
        linear("inner"),
        None if _is_gelu(parts["activation"]) else parts["activation"],
        linear("feedforward"),
        norm("feedforward_norm"),
    )


def _is_gelu(activation: Any) -> bool:
    return type(activation) in (nn.GELU, GELUActivation) and "tanh" not in str(getattr(activation, "approximate", ""))
