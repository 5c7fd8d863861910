"""Compare adapters: signs and values of their weights, training domains, and effects on similarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from scions.deprecation import renamed_arguments
from scions.errors import AdapterError, UsageError
from scions.evaluation.metrics import spearman
from scions.merging.signs import Signs, sign_difference, weight_cosine
from scions.merging.tensor_sites import compared
from scions.mixing.adapters import StoredAdapter, read_several
from scions.mixing.compatibility import check_comparable, obstacle
from scions.mixing.conflict import describe_groups
from scions.mixing.trial import TrialBase
from scions.routing.domains import Domains


@dataclass(frozen=True)
class Effect:
    """Cosine and Spearman correlation of two adapters' `similarity_changes`."""

    cosine: float
    spearman: float


@dataclass(frozen=True)
class PairComparison:
    """Two adapters, named ``one`` and ``other``.

    Attributes:
        signs: fraction of sign difference of their weights.
        weight_cosine: of their weights, without layer norms.
        update_cosine: of what training changed; None where first weights are not known (LoRA, units pruned).
        domain_cosine: of the means of their training domains; None where a manifest holds none.
        effect: on the similarities of texts; None where no texts were given.
        obstacle: why they cannot be mixed; None where they can.
    """

    one: str
    other: str
    signs: Signs
    weight_cosine: float
    update_cosine: float | None
    domain_cosine: float | None
    effect: Effect | None
    obstacle: str | None


@dataclass(frozen=True)
class Comparison:
    """All pairs of several adapters; ``signs`` is of the whole set, ``sentence`` says which can be mixed."""

    names: tuple[str, ...]
    pairs: tuple[PairComparison, ...]
    signs: Signs
    sentence: str
    notes: tuple[str, ...] = field(default=())

    def matrix(self) -> np.ndarray:
        """Return pairwise fractions of sign difference, ``[adapters, adapters]``, 0 on the diagonal."""
        place = {name: i for i, name in enumerate(self.names)}
        matrix = np.zeros((len(place), len(place)))
        for pair in self.pairs:
            i, j = place[pair.one], place[pair.other]
            matrix[i, j] = matrix[j, i] = pair.signs.fraction
        return matrix


@renamed_arguments(root="adapters")
def compare(
    names: Sequence[str | Path],
    *,
    texts: Sequence[str] | None = None,
    base: str | None = None,
    adapters: str | Path | None = None,
) -> Comparison:
    """Compare published adapters of one base, method, placement and rank.

    Args:
        names: two or more, by name in the ``adapters`` folder or by path.
        texts: encoded with the base and every adapter, to compare the adapters' effects; None: no base is loaded.
        base: folder or id of the base; None: the one the adapters name.
        adapters: folder of the adapters; None: `scions.store.default_root`.

    Raises:
        UsageError: fewer than two adapters, one twice, or a base without texts.
        AdapterError: they cannot be compared; names what differs.
    """
    several = read_several(names, None if adapters is None else Path(adapters))
    if base is not None and texts is None:
        raise UsageError("`base=...` has no use without `texts=...`, which it encodes")
    check_comparable(several)
    tensors = {a.name: compared(a.tensors) for a in several}
    domain_cosines, notes = _domain_cosines(several)
    updates = {a.name: a.updates() for a in several if a.has_first_weights}
    changes = {} if texts is None else _changes(several, texts, base)
    pairs = []
    for first, second in combinations(several, 2):
        a, b = first.name, second.name
        pairs.append(
            PairComparison(
                one=a,
                other=b,
                signs=sign_difference([tensors[a], tensors[b]]),
                weight_cosine=weight_cosine(tensors[a], tensors[b]),
                update_cosine=weight_cosine(updates[a], updates[b]) if a in updates and b in updates else None,
                domain_cosine=domain_cosines.get((a, b)),
                effect=effect(changes[a], changes[b]) if changes else None,
                obstacle=obstacle(first, second),
            )
        )
    labels = tuple(tensors)
    fractions = {(pair.one, pair.other): pair.signs.fraction for pair in pairs}
    sentence = next((pair.obstacle for pair in pairs if pair.obstacle), None) or describe_groups(labels, fractions)
    return Comparison(labels, tuple(pairs), sign_difference(list(tensors.values())), sentence, tuple(notes))


def similarity_changes(base: np.ndarray, adapted: np.ndarray) -> np.ndarray:
    """Return the adapter's cosine minus the base's for every pair of n texts: ``[n (n - 1) / 2]``.

    Args:
        base: unit vectors of the bare base, ``[n, dimensions]``.
        adapted: of the adapter, for the same texts.

    Raises:
        UsageError: different numbers of texts, or fewer than three.
    """
    if len(base) != len(adapted) or len(base) < 3:
        raise UsageError(f"the same texts are needed for both, three or more; found {len(base)} and {len(adapted)}")
    upper = np.triu_indices(len(base), 1)
    return np.asarray((adapted @ adapted.T - base @ base.T)[upper], dtype=np.float64)


def effect(one: np.ndarray, other: np.ndarray) -> Effect:
    """Correlate two adapters' `similarity_changes`; 0 where one of them is zero or constant."""
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / length if length else 0.0
    ranked = float(spearman(one, other))
    return Effect(cosine, 0.0 if np.isnan(ranked) else ranked)


def _domain_cosines(several: Sequence[StoredAdapter]) -> tuple[dict[tuple[str, str], float], list[str]]:
    try:
        domains = Domains.of({a.name: a.manifest for a in several})
    except AdapterError as error:
        return {}, [f"training domains are not compared: {error}"]
    matrix, names = domains.similarities(), domains.names
    return {(a, b): float(matrix[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)}, []


def _changes(several: Sequence[StoredAdapter], texts: Sequence[str], base: str | None) -> dict[str, np.ndarray]:
    trial_base = TrialBase.of(several[0], base)
    distinct = list(dict.fromkeys(texts))
    bare = trial_base.bare().encode(distinct)
    return {a.name: similarity_changes(bare, trial_base.published(a).encode(distinct)) for a in several}
