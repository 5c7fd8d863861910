"""Put the tensors of an adapter's file into a model, without initializing, renaming or reporting anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import init_empty_weights
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from scions.adapters.config import BottleneckConfig
from scions.adapters.layer import AdaptedNorm, BottleneckLinear
from scions.adapters.peft_type import FILE_PREFIX
from scions.errors import AdapterError, ScionsError
from scions.store.tensor_check import check_tensors


@dataclass(frozen=True)
class _Slot:
    """Where one tensor of an adapter goes: attribute ``leaf`` of ``owner``, in the precision of ``layer``."""

    owner: nn.Module
    leaf: str
    shape: tuple[int, ...]
    layer: nn.Module


def inject_adapter(
    model: SentenceTransformer, adapter_name: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Add an adapter to ``model`` under ``adapter_name``, with these tensors, frozen and active.

    A second adapter of the same configuration goes beside the first without PEFT's walks over the model.

    Args:
        model: a base, with or without other adapters.
        adapter_name: a name that `scions.store.check_name` accepts and that the model does not have yet.
        config: the content of ``adapter_config.json``.
        weights: tensors under the names of the adapter's file, as `scions.store.read_weights` gives them.

    Raises:
        AdapterError: the configuration is none of PEFT's, the name is taken, the base has no place for it, or the
            tensors are not those its places need. The model is left without the new adapter.
    """
    network = network_of(model)
    if adapter_name in getattr(network, "peft_config", {}):
        raise AdapterError(f"the model already has an adapter {adapter_name!r}; delete it first or choose another name")
    peft_config = to_peft_config(config, adapter_name)
    twin = _twin(network, peft_config)
    if twin is None:
        _inject(model, peft_config, adapter_name)
        network.eval()
        layers = _tuner_layers(network)
    else:
        layers = _tuner_layers(network)
        _add_beside(layers, peft_config, adapter_name, twin)
        network.peft_config[adapter_name] = peft_config
    try:
        _fill(dict(_slots(layers, adapter_name)), weights, adapter_name)
    except AdapterError:
        network.delete_adapter(adapter_name)
        raise
    for layer in layers.values():  # all of them: an adapter that was active elsewhere is so no longer
        layer.set_adapter(adapter_name, inference_mode=True)


def network_of(model: SentenceTransformer) -> Any:
    """Return the transformers model inside. Raises AdapterError where there is none (static word vectors, say)."""
    network = getattr(model[0], "auto_model", None)
    if network is None:
        raise AdapterError(f"the base's first module is a {type(model[0]).__name__}; an adapter needs a transformer")
    return network


def to_peft_config(config: Mapping[str, Any], adapter_name: str) -> Any:
    """Return PEFT's configuration object. Raises AdapterError for a method or a field that it does not know."""
    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(config["peft_type"])
    if kind is None:
        raise AdapterError(f"adapter {adapter_name!r}: peft_type {config['peft_type']!r} is none that PEFT knows")
    fields = {key: value for key, value in config.items() if key != "peft_type"} | {"inference_mode": True}
    try:
        return kind(**fields)
    except (TypeError, ValueError, ScionsError) as error:
        raise AdapterError(f"adapter {adapter_name!r}: its adapter_config.json does not fit: {error}") from error


def _inject(model: SentenceTransformer, config: Any, name: str) -> None:
    with warnings.catch_warnings():
        # PEFT warns of every adapter after the first.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        try:
            model.add_adapter(config, name)
        except (ValueError, KeyError, TypeError) as error:
            raise AdapterError(f"adapter {name!r} does not fit the base: {error}") from error


def _twin(network: Any, config: Any) -> str | None:
    """Return the name of an adapter in the model with the same layers as this bottleneck; None: there is none."""
    if not isinstance(config, BottleneckConfig):
        return None
    wanted = _geometry(config)
    for name, other in getattr(network, "peft_config", {}).items():
        if isinstance(other, BottleneckConfig) and _geometry(other) == wanted:
            return str(name)
    return None


def _geometry(config: Any) -> tuple[Any, ...]:
    return config.placement, config.activation, config.train_norms, config.layers, config.target_modules


def _tuner_layers(network: Any) -> dict[str, Any]:
    return {key: module for key, module in network.named_modules() if isinstance(module, BaseTunerLayer)}


def _add_beside(layers: Mapping[str, Any], config: Any, name: str, twin: str) -> None:

    with init_empty_weights():  # the values come from the file
        for key, layer in layers.items():
            if isinstance(layer, AdaptedNorm) and twin in layer.bottleneck_norm:
                layer.update_layer(name, activate=False)
            elif isinstance(layer, BottleneckLinear) and twin in layer.bottleneck_down:
                width_in: Any = layer.bottleneck_down[twin].in_features
                layer.update_layer(name, config, width_in, key, activate=False)


def _slots(layers: Mapping[str, Any], name: str) -> Iterator[tuple[str, _Slot]]:
    """Yield the places of the adapter's tensors in the model, by their names in its file (without PEFT's prefix)."""
    for key, layer in layers.items():
        for part in layer.adapter_layer_names:
            holder = getattr(layer, part, None)
            if holder is None or name not in holder:
                continue
            item = holder[name]
            if isinstance(item, Tensor):
                yield f"{key}.{part}", _Slot(holder, name, tuple(item.shape), layer)
                continue
            item.eval()
            for path, parameter in item.named_parameters():
                place, _, leaf = path.rpartition(".")
                owner = item.get_submodule(place) if place else item
                yield f"{key}.{part}.{path}", _Slot(owner, leaf, tuple(parameter.shape), layer)


@torch.no_grad()
def _fill(slots: Mapping[str, _Slot], weights: Mapping[str, Tensor], name: str) -> None:
    tensors = {key.removeprefix(FILE_PREFIX): tensor for key, tensor in weights.items()}
    check_tensors(name, tensors, {key: slot.shape for key, slot in slots.items()})
    of_base: dict[int, Tensor] = {}  # by layer: a parameter of its base layer, for device and precision
    for key, slot in slots.items():
        layer = of_base.get(id(slot.layer))
        if layer is None:
            layer = of_base[id(slot.layer)] = next(slot.layer.get_base_layer().parameters())  # type: ignore[operator]
        value = nn.Parameter(tensors[key].to(layer.device, layer.dtype), requires_grad=False)
        if isinstance(slot.owner, nn.ParameterDict):
            slot.owner[slot.leaf] = value
        else:
            slot.owner._parameters[slot.leaf] = value
