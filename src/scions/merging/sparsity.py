"""What pruning takes out of an adapter: single values, whole units of the bottlenecks, or whole layers.

Single values go back to what every adapter of the base starts with, which can be drawn again and so need not be
stored; to set them to zero instead would throw the random projection ``down`` away that all adapters begin with. What
stays of a matrix's movement is made longer, so that it goes as far in the whole movement's direction as that did.
Sources: pruning of adapters by magnitude and by signs, Nguyen & Le 2024 (arXiv 2402.10639), which sets values to zero;
adapters of the upper layers only, AdapterDrop (Rücklé et al. 2021, arXiv 2010.11918).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scions.adapters.initial import DOWN, UP
from scions.errors import AdapterError, UsageError
from scions.merging.tensor_sites import is_matrix, is_norm, place
from scions.merging.ties import magnitude
from scions.mixing.adapters import UNITS, Member, first_weights

if TYPE_CHECKING:
    from torch import Tensor

STRATEGIES = ("magnitude", "sign-aware", "neurons", "layers")
# How much of its magnitude a value counts for whose sign another adapter contradicts. Our reading of "low-magnitude
# conflicting coordinates first": in between the two orders, by magnitude alone and by conflict alone.
CONFLICTING = 0.5


@dataclass(frozen=True)
class Pruned:
    """An adapter with parts taken out.

    Attributes:
        tensors: by the names of an adapter's file.
        config: the content of its ``adapter_config.json``.
        sparse: whether it is to be stored as what differs from the first values.
        sparsity: share of the bottlenecks' matrix values that are gone.
        initialisation: the id of its first weights: another one where its units are no longer those of other adapters.
        rank, layers: where they changed.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    sparse: bool
    sparsity: float
    initialisation: str
    rank: int | None = None
    layers: int | None = None


def pruned(member: Member, sparsity: float, strategy: str, against: Sequence[Member] = ()) -> Pruned:
    """Take ``sparsity`` (0 to below 1) of an adapter's bottlenecks out; layer norms and biases stay.

    Args:
        member: a bottleneck adapter.
        sparsity: share of the matrices' values; units and layers are whole, so theirs is the nearest share that
            leaves at least one.
        strategy: ``magnitude``: of each matrix the values that training moved least; ``sign-aware``: the same, but what
            ``against`` contradict in sign counts for less; ``neurons``: the units that add least, as many at every
            site, so that the rank becomes smaller; ``layers``: all that lies in the lower layers, norms too.
        against: adapters of the same base, places and first weights, for ``sign-aware``.

    Raises:
        UsageError: a sparsity or strategy out of range, or ``against`` where it does not belong.
        AdapterError: not a bottleneck, one that has fewer units or layers than pruning needs, or one whose first
            values are not known because units were taken out before.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    if not 0 < sparsity < 1:
        raise UsageError(f"sparsity must lie between 0 and 1 (0.9 takes nine of ten values out), found {sparsity}")
    if bool(against) != (strategy == "sign-aware"):
        needed = "needs adapters to compare signs with (--against)" if not against else "takes no --against"
        raise UsageError(f"strategy {strategy!r} {needed}")
    if not member.is_bottleneck:
        raise AdapterError(f"{member.name}: is {member.manifest.method}; only bottleneck adapters can be pruned")
    if strategy == "neurons":
        return _neurons(member, sparsity)
    if strategy == "layers":
        return _layers(member, sparsity)
    return _values(member, sparsity, [other.tensors for other in against])


def _values(member: Member, sparsity: float, against: Sequence[Mapping[str, Tensor]]) -> Pruned:
    import torch

    start = first_weights(member)
    moved = {name: member.tensors[name].float() - start[name] for name in start}
    weight = {name: difference.abs() for name, difference in moved.items()}
    for name in weight:
        own = member.tensors[name].sign()
        for other in against:
            contradicted = own * other[name].sign() < 0
            weight[name] = torch.where(contradicted, moved[name].abs() * CONFLICTING, weight[name])
    tensors = dict(member.tensors)
    gone = total = 0
    for name, first in start.items():
        out = weight[name] <= magnitude([weight[name]], sparsity)
        left = moved[name].masked_fill(out, 0.0)
        # The squared length of all that moved, by that of what is left: left alone would be a step too short (and the
        # gain of an adapter grows with the step), as in DARE (Yu et al. 2024, arXiv 2311.03099) for values at random.
        longer = moved[name].square().sum() / left.square().sum().clamp(min=1e-12)
        tensors[name] = first + longer * left
        gone, total = gone + int(out.sum()), total + out.numel()
    return Pruned(tensors, dict(member.config), True, gone / total, member.manifest.initialisation.id)


def _neurons(member: Member, sparsity: float) -> Pruned:
    rank = int(member.config["rank"])
    keep = max(1, round(rank * (1 - sparsity)))
    if keep >= rank:
        raise AdapterError(f"{member.name}: has rank {rank}: a sparsity of {sparsity:g} takes no whole unit out of it")
    tensors = dict(member.tensors)
    for name in [n for n in tensors if n.endswith(DOWN)]:
        site = name.removesuffix(DOWN)
        down, up, bias = tensors[name].float(), tensors[site + UP].float(), f"{site}.bottleneck_down.bias"
        # What a unit can add: the length of its column, times that of the row that drives it.
        units = (up.norm(dim=0) * down.norm(dim=1)).topk(keep).indices.sort().values
        tensors |= {name: down[units].clone(), site + UP: up[:, units].clone(), bias: tensors[bias][units].clone()}
    # Units of different adapters no longer lie over each other, so it must not be mixed.
    own = f"{UNITS}{member.fingerprint[:16]}"
    return Pruned(tensors, {**member.config, "rank": keep}, False, 1 - keep / rank, own, rank=keep)


def _layers(member: Member, sparsity: float) -> Pruned:
    if member.config.get("target_modules") is not None:
        raise AdapterError(f"{member.name}: its places are named one by one, so no layers can be left out")
    layers = sorted({place(name)[0] for name in member.tensors if not is_norm(name)})
    keep = max(1, round(len(layers) * (1 - sparsity)))
    if keep >= len(layers):
        raise AdapterError(
            f"{member.name}: sits in {len(layers)} layers: a sparsity of {sparsity:g} takes no whole layer out of them"
        )
    kept = set(layers[-keep:])
    tensors = {name: t for name, t in member.tensors.items() if place(name)[0] in kept}
    gone = 1 - _count(tensors) / _count(member.tensors)
    own = member.manifest.initialisation.id
    return Pruned(tensors, {**member.config, "layers": keep}, False, gone, own, layers=keep)


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for name, tensor in tensors.items() if is_matrix(name))
