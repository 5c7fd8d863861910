"""Pruning of an adapter's tensors: single values, whole units of the bottlenecks, or whole layers.

Pruned values go back to what every adapter of the base starts with, which can be drawn again and so need not be
stored; setting them to zero would throw away the random projection ``down`` that all adapters begin with. What stays
of a matrix's movement is made longer, so that it goes as far in the whole movement's direction as that did.
Sources: pruning of adapters by magnitude and by signs, Nguyen & Le 2024 (arXiv 2402.10639), which sets values to zero;
adapters of the upper layers only, AdapterDrop (Rücklé et al. 2021, arXiv 2010.11918).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scions.adapters.initial import DOWN, UP
from scions.merging.tensor_sites import is_matrix, is_norm, place
from scions.merging.ties import magnitude

if TYPE_CHECKING:
    from torch import Tensor

# How much of its magnitude a value counts for whose sign another adapter contradicts. Our reading of "low-magnitude
# conflicting coordinates first": in between the two orders, by magnitude alone and by conflict alone.
CONFLICTING = 0.5


def prune_values(
    tensors: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    sparsity: float,
    against: Sequence[Mapping[str, Tensor]] = (),
) -> tuple[dict[str, Tensor], float]:
    """Take the values that training moved least back to their start, of each matrix the same share.

    Args:
        tensors: the adapter's, by the names of its file.
        start: first values of its matrices, by the same names.
        sparsity: share of each matrix's values, 0 to 1.
        against: tensors of other adapters; a value counts for less where one of them contradicts its sign.

    Returns:
        All tensors, and the share of the matrices' values that is gone.
    """
    import torch

    moved = {name: tensors[name].float() - start[name] for name in start}
    weight = {name: difference.abs() for name, difference in moved.items()}
    for name in weight:
        own = tensors[name].sign()
        for other in against:
            contradicted = own * other[name].sign() < 0
            weight[name] = torch.where(contradicted, moved[name].abs() * CONFLICTING, weight[name])
    pruned = dict(tensors)
    gone = total = 0
    for name, first in start.items():
        out = weight[name] <= magnitude([weight[name]], sparsity)
        left = moved[name].masked_fill(out, 0.0)
        # The squared length of all that moved, by that of what is left: left alone would be a step too short (and the
        # gain of an adapter grows with the step), as in DARE (Yu et al. 2024, arXiv 2311.03099) for values at random.
        longer = moved[name].square().sum() / left.square().sum().clamp(min=1e-12)
        pruned[name] = first + longer * left
        gone, total = gone + int(out.sum()), total + out.numel()
    return pruned, gone / total


def prune_neurons(tensors: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Keep, at every site, the ``keep`` units of the bottleneck that can add most."""
    pruned = dict(tensors)
    for name in [n for n in tensors if n.endswith(DOWN)]:
        site = name.removesuffix(DOWN)
        down, up, bias = tensors[name].float(), tensors[site + UP].float(), f"{site}.bottleneck_down.bias"
        # What a unit can add: the length of its column, times that of the row that drives it.
        units = (up.norm(dim=0) * down.norm(dim=1)).topk(keep).indices.sort().values
        pruned |= {name: down[units].clone(), site + UP: up[:, units].clone(), bias: tensors[bias][units].clone()}
    return pruned


def layers_of(tensors: Mapping[str, Tensor]) -> list[int]:
    """The layers that hold a bottleneck, in ascending order."""
    return sorted({place(name)[0] for name in tensors if not is_norm(name)})


def prune_layers(tensors: Mapping[str, Tensor], kept: Sequence[int]) -> tuple[dict[str, Tensor], float]:
    """Keep the tensors of these layers, norms too. Returns them and the share of the matrices' values that is gone."""
    left = {name: tensor for name, tensor in tensors.items() if place(name)[0] in set(kept)}
    return left, 1 - _count(left) / _count(tensors)


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for name, tensor in tensors.items() if is_matrix(name))
