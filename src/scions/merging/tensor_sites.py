"""Layer and site of each tensor of an adapter's file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from scions.adapters.initial import DOWN, UP
from scions.adapters.peft_type import FILE_PREFIX

_LAYER = re.compile(r"(?:^|\.)(?P<layer>\d+)\.(?P<site>.+)$")
_BOTTLENECK = re.compile(r"\.bottleneck_(down|up)\.(weight|bias)$")


def is_norm(name: str) -> bool:
    """Whether a tensor of an adapter's file belongs to a layer norm."""
    return ".bottleneck_norm." in name


def is_matrix(name: str) -> bool:
    """Whether a tensor is a bottleneck's ``down`` or ``up`` matrix."""
    return name.endswith((DOWN, UP))


def compared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that signs and cosines are taken of: all but the layer norms'."""
    return {name: tensor for name, tensor in tensors.items() if not is_norm(name)}


def place(name: str) -> tuple[int, str]:
    """Return layer (-1 where the name has none) and site of a tensor: ``(3, "attention.output.dense")``."""
    path = _BOTTLENECK.sub("", name.removeprefix(FILE_PREFIX))
    match = _LAYER.search(path)
    return (int(match["layer"]), match["site"]) if match else (-1, path)
