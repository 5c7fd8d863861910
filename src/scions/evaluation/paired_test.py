"""Randomization test for the difference between two encoders on the same rows.

Under the null hypothesis the two encoders' results on a group of rows could be exchanged. All exchanges are enumerated
where few groups differ; else they are drawn at random (Fisher 1935; for retrieval: Smucker et al. 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST_GROUPS = 6  # with fewer the smallest two-sided p, 2^(1 - n), is above 0.05
ENUMERATED = 12  # differing groups up to which all exchanges are tried
DRAWS = 1999
_CELLS = 4_000_000  # exchanged values held in memory together


@dataclass(frozen=True)
class Randomization:
    """What a randomization test found.

    Attributes:
        p: two-sided; 1 where nothing differs, NaN where the metric is undefined.
        groups: independent groups of units.
        differing: groups that the two encoders do not score alike.
        detectable: smallest true difference that the test would show in four of five cases, x100.
    """

    p: float
    groups: int
    differing: int
    detectable: float


def randomization_test(base: Any, other: Any, groups: np.ndarray, seed: int = 0) -> Randomization:
    """Test whether other and base differ by more than chance, exchanging whole groups.

    Args:
        base, other: units of one metric (`scions.evaluation.scores`), with ``differing`` and ``exchanged``.
        groups: `[n]`, the group of each unit, numbered from 0.
        seed: of the random exchanges.
    """
    count = int(groups.max()) + 1
    differs = np.unique(groups[base.differing(other)])
    unit = 100.0 / len(groups)  # one unit that changes completely
    if not len(differs):
        return Randomization(1.0, count, 0, 2.8 * unit)
    observed = abs(float(base.exchanged(other, np.zeros((1, count), dtype=bool), groups)[0]))
    if np.isnan(observed):
        return Randomization(float("nan"), count, len(differs), float("nan"))
    exact = len(differs) <= ENUMERATED
    if exact:
        patterns = (np.arange(2 ** len(differs))[:, None] >> np.arange(len(differs))) & 1
    else:
        patterns = np.random.default_rng(seed).integers(0, 2, size=(DRAWS, len(differs)), dtype=np.int8)
    values = []
    for block in np.array_split(patterns, max(1, len(patterns) * len(groups) // _CELLS)):
        swaps = np.zeros((len(block), count), dtype=bool)
        swaps[:, differs] = block
        values.append(base.exchanged(other, swaps, groups))
    null = np.nan_to_num(np.concatenate(values))
    hits = int((np.abs(null) >= observed - 1e-9 * max(observed, 1e-12)).sum())
    p = hits / len(null) if exact else (hits + 1) / (len(null) + 1)
    return Randomization(p, count, len(differs), max(2.8 * 100.0 * float(null.std()), 2.8 * unit))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted for several comparisons (Holm 1979), in their order; NaN stays and does not count."""
    defined = [i for i, value in enumerate(values) if not np.isnan(value)]
    adjusted, running = list(values), 0.0
    for place, index in enumerate(sorted(defined, key=lambda i: values[i])):
        running = max(running, min(1.0, (len(defined) - place) * values[index]))
        adjusted[index] = running
    return adjusted
