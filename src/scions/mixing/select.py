"""Rank adapters for the texts of a domain that has none of its own, and propose a soup, one adapter, or the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scions.deprecation import renamed_arguments
from scions.errors import AdapterError, UsageError
from scions.mixing.domain_weights import cluster_shares
from scions.routing.domains import Domains
from scions.store import Manifest, list_adapters

LIMIT = 5  # AdapterSoup: more than five members did not help
SHARE = 0.1  # of the texts that must fall into a domain's component for its adapter to be added
# Share of texts of no domain above which nothing is proposed. With one of twelve domains left out it was at most 0.12
# where another domain was near, and from 0.40 to 0.95 where none was (benchmarks/mixing.py, stage novel).
NONE = 1 / 3
WAYS = ("cosine", "mixture")


@dataclass(frozen=True)
class Candidate:
    """One adapter: mean pairwise cosine with its domain, share of texts in its component, evidence in nats a text."""

    name: str
    cosine: float
    share: float
    evidence: float


@dataclass(frozen=True)
class Selection:
    """``ranked`` is best first; ``weights`` is the proposal: a soup, one adapter, or, where empty, the bare base."""

    ranked: tuple[Candidate, ...]
    weights: dict[str, float]
    reason: str
    texts: int
    notes: tuple[str, ...] = ()


@renamed_arguments(root="adapters", most="limit")
def select(
    texts: Sequence[str],
    *,
    by: str = "cosine",
    limit: int = LIMIT,
    base: str | None = None,
    adapters: str | Path | None = None,
) -> Selection:
    """Propose which of the adapters in a folder to use for these texts; about 100 are enough.

    Args:
        texts: of the new domain; no labels.
        by: ``mixture``: domains that are the likeliest origin of 10 % of the texts or more; ``cosine``: the most
            similar ones, of those that 10 % of the texts are close to (AdapterSoup, arXiv 2302.07027, has both).
            Either gives the bare base where the texts, each against the domain that fits it best, fit none.
        limit: largest number of adapters to propose.
        base: only adapters of this base; None: the base that most of them have.
        adapters: folder of the adapters; None: `scions.store.default_root`.

    Raises:
        UsageError: no texts, or an unknown way.
        AdapterError: no adapter there can be chosen by its domain.
    """
    from scions.mixing.trial import TrialBase

    if not texts:
        raise UsageError("no texts to choose by")
    _check(by, limit)
    manifests, notes = _choosable(adapters, base)
    domains = Domains.of(manifests)
    first = next(iter(manifests.values())).base
    trial_base = TrialBase(base or first.id, first.weights_sha256, dtype=None)
    found = propose(trial_base.domain_vectors(list(dict.fromkeys(texts))), domains, by=by, limit=limit)
    weights, left_out = _together(found.weights, manifests)
    return Selection(found.ranked, weights, found.reason, found.texts, (*notes, *left_out))


def propose(vectors: np.ndarray, domains: Domains, *, by: str = "cosine", limit: int = LIMIT) -> Selection:
    """The choice itself, from the bare base's unit vectors ``[texts, dimensions]``.

    Raises:
        UsageError: as `select`.
    """
    _check(by, limit)
    cosines, texts = domains.cosines(vectors), domains.evidence(vectors)
    none, *parts_of = cluster_shares(vectors, domains)
    shares, evidence = np.array(parts_of), texts.mean(axis=0)
    key = shares if by == "mixture" else cosines
    order = sorted(range(len(key)), key=lambda i: (-key[i], -cosines[i]))
    ranked = tuple(Candidate(domains.names[i], float(cosines[i]), float(shares[i]), float(evidence[i])) for i in order)
    if none > NONE:
        return Selection(ranked, {}, f"{none:.0%} of the texts fall to none of the adapters' domains", len(vectors))
    # A text falls to one domain of a mixture; to be similar to it can be said of several.
    fit = shares if by == "mixture" else (texts >= 0).mean(axis=0) * (cosines > 0)
    if not fit.max() > 0:  # domains so broad that texts of none hardly differ from them
        return Selection(ranked, {}, "none of the texts is close to any of the adapters' domains", len(vectors))
    needed = min(SHARE, fit.max())
    chosen = [c for c, i in zip(ranked, order, strict=True) if fit[i] >= needed][:limit]
    if by == "mixture":
        parts, why = [c.share for c in chosen], f"{SHARE:.0%} of the texts or more fall to each of their domains"
    else:
        parts, why = [c.cosine for c in chosen], "their domains are the most similar"
    weights = {c.name: part / sum(parts) for c, part in zip(chosen, parts, strict=True)}
    return Selection(ranked, weights, why if len(chosen) > 1 else "one domain stands out", len(vectors))


def _check(by: str, limit: int) -> None:
    if by not in WAYS:
        raise UsageError(f"adapters are chosen by {' or '.join(WAYS)}, not by {by!r}")
    if limit < 1:
        raise UsageError(f"at least one adapter must be allowed, found {limit}")


def _choosable(adapters: str | Path | None, base: str | None) -> tuple[dict[str, Manifest], list[str]]:
    from collections import Counter

    from scions.store import base_fingerprint, resolve_base

    usable: dict[str, Manifest] = {}
    notes = []
    for entry in list_adapters(adapters):
        why = entry.problem or (_unfit(entry.manifest) if entry.manifest else "no manifest")
        if why is None and entry.manifest is not None:
            usable[entry.name] = entry.manifest
        else:
            notes.append(f"{entry.name} is left out: {why}")
    for name in [name for name, manifest in usable.items() if _original(manifest) in usable]:
        notes.append(f"{name} is left out: it is {_original(usable.pop(name))}, pruned")
    if not usable:
        raise AdapterError(f"there is no adapter to choose from{': ' if notes else ''}{'; '.join(notes[:4])}")
    if base is not None:
        wanted = base_fingerprint(resolve_base(base))
    else:
        wanted = Counter(m.base.weights_sha256 for m in usable.values()).most_common(1)[0][0]
    other = [name for name, m in usable.items() if m.base.weights_sha256 != wanted]
    notes += [f"{name} is left out: it belongs to another base ({usable[name].base.id})" for name in other]
    kept = {name: m for name, m in usable.items() if name not in other}
    if not kept:
        raise AdapterError(f"none of the {len(usable)} adapters belongs to the base {base!r}")
    return kept, notes


def _together(weights: dict[str, float], manifests: dict[str, Manifest]) -> tuple[dict[str, float], list[str]]:
    """Those of the proposed that can be mixed with the first of them."""

    def kind(name: str) -> tuple[object, ...]:
        m = manifests[name]
        return m.method, m.rank, m.placement, m.initialisation.id, m.query_side, m.pooling, m.prompts

    first = next(iter(weights), None)
    kept = {name: weight for name, weight in weights.items() if first is not None and kind(name) == kind(first)}
    notes = [f"{name} cannot be mixed with {first} (scions compare says why)" for name in weights if name not in kept]
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}, notes


def _original(manifest: Manifest) -> str | None:
    """The adapter that this one was pruned from: of its domain too."""
    pruned = manifest.extra.get("pruned")
    return str(pruned.get("of")) if isinstance(pruned, dict) else None


def _unfit(manifest: Manifest) -> str | None:
    if manifest.method == "full":
        return "it is a whole model"
    return None if manifest.domain is not None else "its scions.json holds no domain statistics"
