"""Fraction of sign difference, and cosine, of adapters' weights.

Source: Nguyen & Le 2024 (arXiv 2402.10639): for two adapters the share of coordinates whose signs differ, for a set
the share whose signs are not unanimous. Exact zeros do not count, and layer norms are left out
(`tensor_sites.compared`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from scions.errors import UsageError
from scions.merging.tensor_sites import place


@dataclass(frozen=True)
class Signs:
    """``differing`` of ``counted`` coordinates are not unanimous, in all and by place (layer, site)."""

    differing: int
    counted: int
    by_place: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def fraction(self) -> float:
        """0 to 1; 0 where nothing counts."""
        return self.differing / self.counted if self.counted else 0.0

    def by_layer(self) -> dict[int, float]:
        """Return the fraction within each layer."""
        return self._grouped(0)

    def by_site(self) -> dict[str, float]:
        """Return the fraction at each site, over all layers."""
        return self._grouped(1)

    def _grouped(self, part: int) -> dict:
        sums: dict = {}
        for where, (differing, counted) in sorted(self.by_place.items()):
            before = sums.get(where[part], (0, 0))
            sums[where[part]] = (before[0] + differing, before[1] + counted)
        return {key: differing / counted if counted else 0.0 for key, (differing, counted) in sums.items()}


def sign_difference(members: Sequence[Mapping[str, Tensor]]) -> Signs:
    """Count sign differences over the same tensors, by name, of two or more adapters.

    A coordinate counts where at least two adapters are not exactly 0 there; zeros have no sign.

    Raises:
        UsageError: fewer than two adapters, or their tensors differ in name or shape.
    """
    _check(members)
    by_place: dict[tuple[int, str], tuple[int, int]] = {}
    for name in members[0]:
        positive = sum((m[name] > 0).int() for m in members)
        negative = sum((m[name] < 0).int() for m in members)
        counted = int((positive + negative >= 2).sum())  # type: ignore[union-attr]
        differing = int(((positive > 0) & (negative > 0)).sum())  # type: ignore[union-attr, operator]
        before = by_place.get(place(name), (0, 0))
        by_place[place(name)] = (before[0] + differing, before[1] + counted)
    return Signs(sum(d for d, _ in by_place.values()), sum(c for _, c in by_place.values()), by_place)


def weight_cosine(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the cosine of two adapters' tensors, each as one vector; 0 where one of them is all zeros.

    Raises:
        UsageError: as `sign_difference`.
    """
    _check([one, other])
    product = sum(float((one[name].double() * other[name].double()).sum()) for name in one)
    squares = [sum(float(tensor.double().square().sum()) for tensor in m.values()) for m in (one, other)]
    length = (squares[0] * squares[1]) ** 0.5
    return product / length if length else 0.0


def _check(members: Sequence[Mapping[str, Tensor]]) -> None:
    if len(members) < 2:
        raise UsageError(f"signs are compared between two adapters or more, found {len(members)}")
    shapes = [{name: tuple(tensor.shape) for name, tensor in m.items()} for m in members]
    for other in shapes[1:]:
        if other != shapes[0]:
            odd = sorted(name for name in shapes[0].keys() | other.keys() if shapes[0].get(name) != other.get(name))
            raise UsageError(f"these adapters' tensors do not match: {odd[0]} differs in shape or is missing")
