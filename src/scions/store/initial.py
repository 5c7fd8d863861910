"""The weights that all bottleneck adapters of a base start from: drawn again from the seed, stored nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FILE_PREFIX = "base_model.model."
DOWN, UP = ".bottleneck_down.weight", ".bottleneck_up.weight"


def initial_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """First values (float32) of the ``down`` and ``up`` matrices among ``shapes``, under the same names.

    Args:
        shapes: names in an adapter's file, and their shapes; other tensors, and a matrix that is none or lacks its
            counterpart, are passed over.
        seed: ``init_seed`` of the adapter's configuration.
    """
    import torch

    from scions.adapters.layer import fill_initial_

    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        site = name.removesuffix(DOWN)
        other = shapes.get(site + UP, ())
        if site == name or not len(shape) == len(other) == 2 or min(*shape, *other) < 1:
            continue
        down, up = torch.empty(tuple(shape)), torch.empty(tuple(other))
        fill_initial_(down, up, seed, site.removeprefix(FILE_PREFIX))
        found |= {name: down, site + UP: up}
    return found
