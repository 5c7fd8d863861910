"""Adapters held against each other: their signs, their weights, what they do to vectors, and what they learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from scions.deprecation import renamed_arguments
from scions.errors import AdapterError, UsageError
from scions.merging.signs import Signs, sign_difference, weight_cosine
from scions.merging.tensor_sites import compared
from scions.mixing.adapters import Member, read_members, updates
from scions.mixing.compatibility import check_comparable, obstacle
from scions.mixing.conflict import sentence
from scions.routing.domains import Domains


@dataclass(frozen=True)
class PairComparison:
    """Two adapters.

    Attributes:
        signs: fraction of sign difference of their weights.
        weight_cosine: of their weights, layer norms left out.
        update_cosine: of what training changed; None where first weights are not known (LoRA, units taken out).
        domain_cosine: of their training domains' means; None where a manifest holds none.
        effect: what they do to vectors; None where no texts were given.
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
    """``signs`` is of the whole set; ``sentence`` says who can be mixed with whom."""

    names: tuple[str, ...]
    pairs: tuple[PairComparison, ...]
    signs: Signs
    sentence: str
    notes: tuple[str, ...] = field(default=())

    def matrix(self) -> np.ndarray:
        """Pairwise fractions of sign difference, ``[adapters, adapters]``, 0 on the diagonal."""
        place = {name: i for i, name in enumerate(self.names)}
        out = np.zeros((len(place), len(place)))
        for pair in self.pairs:
            out[place[pair.one], place[pair.other]] = out[place[pair.other], place[pair.one]] = pair.signs.fraction
        return out


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
        names: two or more, by name in the ``adapters`` folder, or by path.
        texts: encoded with the base and every adapter, to see what each does to their similarities; None leaves that
            out, and then no base is loaded.
        base: where the base lies, if not where the adapters say.
        adapters: folder of the adapters; None: `scions.store.default_root`.

    Raises:
        UsageError: fewer than two adapters, one twice, or a base without texts.
        AdapterError: they cannot be compared; says which differ in what.
    """
    members = read_members(names, None if adapters is None else Path(adapters))
    if base is not None and texts is None:
        raise UsageError("the base is loaded only to encode texts (--effects); without them --base has no use")
    check_comparable(members)
    tensors = {m.name: compared(m.tensors) for m in members}
    domains, notes = _domains(members)
    changed = {m.name: updates(m) for m in members if m.knows_its_start}
    effects = {} if texts is None else _changes(members, texts, base)
    pairs = []
    for one, other in combinations(members, 2):
        a, b = one.name, other.name
        pairs.append(
            PairComparison(
                one=a,
                other=b,
                signs=sign_difference([tensors[a], tensors[b]]),
                weight_cosine=weight_cosine(tensors[a], tensors[b]),
                update_cosine=weight_cosine(changed[a], changed[b]) if a in changed and b in changed else None,
                domain_cosine=None if domains is None else _cosine(domains, a, b),
                effect=effect(effects[a], effects[b]) if effects else None,
                obstacle=obstacle(one, other),
            )
        )
    called = tuple(m.name for m in members)
    obstacles = list(dict.fromkeys(pair.obstacle for pair in pairs if pair.obstacle))
    told = sentence(called, {(p.one, p.other): p.signs.fraction for p in pairs}) if not obstacles else obstacles[0]
    return Comparison(called, tuple(pairs), sign_difference(list(tensors.values())), told, tuple(notes))


def _domains(members: Sequence[Member]) -> tuple[Domains | None, list[str]]:
    try:
        return Domains.of({m.name: m.manifest for m in members}), []
    except AdapterError as error:
        return None, [f"training domains are not compared: {error}"]


def _cosine(domains: Domains, one: str, other: str) -> float:
    return float(domains.similarities()[domains.names.index(one), domains.names.index(other)])


def _changes(members: Sequence[Member], texts: Sequence[str], base: str | None) -> dict[str, np.ndarray]:
    from scions.mixing.trial import TrialBase

    trial_base = TrialBase.of(members[0], base)
    distinct = list(dict.fromkeys(texts))
    bare = trial_base.bare().encode(distinct)
    return {m.name: similarity_changes(bare, trial_base.published(m).encode(distinct)) for m in members}


@dataclass(frozen=True)
class Effect:
    """How alike two adapters' changes are: the cosine and the Spearman correlation over all pairs of texts."""

    cosine: float
    spearman: float


def similarity_changes(base: np.ndarray, adapted: np.ndarray) -> np.ndarray:
    """``[n (n - 1) / 2]``: for every pair of n texts, the adapter's cosine less the base's.

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
    """Of two adapters' `similarity_changes`; 0 where one of them changes nothing, or everything alike."""
    from scions.evaluation.metrics import spearman

    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / length if length else 0.0
    ranked = float(spearman(one, other))
    return Effect(cosine, 0.0 if np.isnan(ranked) else ranked)
