"""Prune an adapter's tensors: single values, whole units of the bottlenecks, or whole layers.

Pruned values return to the first weights that all adapters of the base share, which can be drawn again and need not be
stored; zeros would discard the random projection ``down``. The remaining update of a matrix is scaled up, so that it
goes as far in the direction of the whole update.
Sources: pruning of adapters by magnitude and by signs, Nguyen & Le 2024 (arXiv 2402.10639), which sets values to zero;
adapters of the upper layers only, AdapterDrop (Rücklé et al. 2021, arXiv 2010.11918).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scions.adapters.initial import DOWN, UP
from scions.merging.tensor_sites import is_matrix, is_norm, place
from scions.merging.ties import magnitude

# Factor on the magnitude of a value whose sign another adapter contradicts: our reading of "low-magnitude conflicting
# coordinates first", between an order by magnitude alone and one by conflict alone.
CONFLICTING = 0.5


def prune_values(
    tensors: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    sparsity: float,
    against: Sequence[Mapping[str, Tensor]] = (),
) -> tuple[dict[str, Tensor], float]:
    """Return the values that training moved least to their first weights, the same share of each matrix.

    Args:
        tensors: the adapter's, by the names of its file.
        start: first values of its matrices, by the same names.
        sparsity: share of each matrix's values, 0 to 1.
        against: tensors of other adapters; a value counts for less where one of them contradicts its sign.

    Returns:
        All tensors, and the share of the matrices' values that was pruned.
    """
    moved = {name: tensors[name].float() - start[name] for name in start}
    weight = {name: difference.abs() for name, difference in moved.items()}
    for name in weight:
        for other in against:
            contradicted = tensors[name].sign() * other[name].sign() < 0
            weight[name] = torch.where(contradicted, moved[name].abs() * CONFLICTING, weight[name])
    pruned = dict(tensors)
    count = total = 0
    for name, first in start.items():
        out = weight[name] <= magnitude([weight[name]], sparsity)
        left = moved[name].masked_fill(out, 0.0)
        # Rescaled by the squared lengths of the whole and the remaining update, as DARE (Yu et al. 2024, arXiv
        # 2311.03099) rescales values dropped at random: the gain of an adapter grows with the step.
        scale = moved[name].square().sum() / left.square().sum().clamp(min=1e-12)
        pruned[name] = first + scale * left
        count, total = count + int(out.sum()), total + out.numel()
    return pruned, count / total


def prune_neurons(tensors: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Keep, at every site, the ``keep`` units of the bottleneck with the largest outputs."""
    pruned = dict(tensors)
    for name in [n for n in tensors if n.endswith(DOWN)]:
        site = name.removesuffix(DOWN)
        down, up, bias = tensors[name].float(), tensors[site + UP].float(), f"{site}.bottleneck_down.bias"
        # Size of a unit's output: the length of its column of `up` times that of its row of `down`.
        units = (up.norm(dim=0) * down.norm(dim=1)).topk(keep).indices.sort().values
        pruned |= {name: down[units].clone(), site + UP: up[:, units].clone(), bias: tensors[bias][units].clone()}
    return pruned


def layers_of(tensors: Mapping[str, Tensor]) -> list[int]:
    """Return the layers with a bottleneck, in ascending order."""
    return sorted({place(name)[0] for name in tensors if not is_norm(name)})


def prune_layers(tensors: Mapping[str, Tensor], keep: Sequence[int]) -> tuple[dict[str, Tensor], float]:
    """Keep the tensors of these layers, norms too. Returns them and the pruned share of the matrices' values."""
    left = {name: tensor for name, tensor in tensors.items() if place(name)[0] in set(keep)}
    return left, 1 - _count(left) / _count(tensors)


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for name, tensor in tensors.items() if is_matrix(name))
