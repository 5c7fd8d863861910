"""Rank adapters for texts of a new domain, and propose a mixture, one adapter, or the bare base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scions.deprecation import renamed_arguments
from scions.errors import AdapterError, UsageError
from scions.mixing.domain_weights import cluster_shares
from scions.mixing.trial import TrialBase
from scions.routing.domains import Domains, domain_vectors, unroutable
from scions.store import Manifest, base_fingerprint, list_adapters, resolve_base

LIMIT = 5  # in AdapterSoup more than five members did not help
MIN_SHARE = 0.1  # of the texts that must belong to a domain's component for its adapter to be added
# Share of texts of no domain above which the base is proposed. With one of twelve domains left out it was at most 0.12
# where another domain was near, and from 0.40 to 0.95 where none was (benchmarks/mixing.py, stage novel).
MAX_BACKGROUND = 1 / 3
METHODS = ("cosine", "mixture")


@dataclass(frozen=True)
class Candidate:
    """One adapter: mean cosine of the texts with its domain, share of texts in it, evidence in nats per text."""

    name: str
    cosine: float
    share: float
    evidence: float


@dataclass(frozen=True)
class Selection:
    """``ranked`` is best first; ``weights`` is the proposal: a mixture, one adapter, or, where empty, the base."""

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
    """Propose which of the adapters in a folder to use for these texts.

    Args:
        texts: of the new domain, without labels; about 100 are enough.
        by: ``cosine``: the most similar domains, of those that 10 % of the texts are close to; ``mixture``: domains
            that are the likeliest origin of 10 % of the texts or more (AdapterSoup, arXiv 2302.07027, has both).
            Either proposes the bare base where the texts, each against the domain that fits it best, fit none.
        limit: largest number of adapters to propose.
        base: only adapters of this base; None: the base that most of them have.
        adapters: folder of the adapters; None: `scions.store.default_root`.

    Raises:
        UsageError: no texts, or an unknown method.
        AdapterError: the folder holds no adapter with domain statistics.
    """
    if not texts:
        raise UsageError("no texts to choose by")
    _check(by, limit)
    manifests, notes = _choosable(adapters, base)
    domains = Domains.of(manifests)
    first = next(iter(manifests.values())).base
    trial_base = TrialBase(base or first.id, first.weights_sha256, dtype=None)
    vectors = domain_vectors(trial_base.encoder, list(dict.fromkeys(texts)))
    selection = propose(vectors, domains, by=by, limit=limit)
    weights, left_out = _mixable(selection.weights, manifests)
    return replace(selection, weights=weights, notes=(*notes, *left_out))


def propose(vectors: np.ndarray, domains: Domains, *, by: str = "cosine", limit: int = LIMIT) -> Selection:
    """Rank and propose by the bare base's unit vectors of the texts, ``[texts, dimensions]``.

    Raises:
        UsageError: as `select`.
    """
    _check(by, limit)
    cosines, texts = domains.cosines(vectors), domains.evidence(vectors)
    background, *rest = cluster_shares(vectors, domains)
    shares, evidence = np.array(rest), texts.mean(axis=0)
    key = shares if by == "mixture" else cosines
    order = sorted(range(len(key)), key=lambda i: (-key[i], -cosines[i]))
    ranked = tuple(Candidate(domains.names[i], float(cosines[i]), float(shares[i]), float(evidence[i])) for i in order)
    if background > MAX_BACKGROUND:
        return Selection(
            ranked, {}, f"{background:.0%} of the texts fall to none of the adapters' domains", len(vectors)
        )
    # A text belongs to one domain of a mixture, but can be similar to several.
    fit = shares if by == "mixture" else (texts >= 0).mean(axis=0) * (cosines > 0)
    if not fit.max() > 0:  # domains so broad that texts of none hardly differ from them
        return Selection(ranked, {}, "none of the texts is close to any of the adapters' domains", len(vectors))
    needed = min(MIN_SHARE, fit.max())
    chosen = [c for c, i in zip(ranked, order, strict=True) if fit[i] >= needed][:limit]
    if by == "mixture":
        parts, why = [c.share for c in chosen], f"{MIN_SHARE:.0%} of the texts or more fall to each of their domains"
    else:
        parts, why = [c.cosine for c in chosen], "their domains are the most similar"
    weights = {c.name: part / sum(parts) for c, part in zip(chosen, parts, strict=True)}
    return Selection(ranked, weights, why if len(chosen) > 1 else "one domain stands out", len(vectors))


def _check(by: str, limit: int) -> None:
    if by not in METHODS:
        raise UsageError(f"adapters are chosen by {' or '.join(METHODS)}, not by {by!r}")
    if limit < 1:
        raise UsageError(f"at least one adapter must be allowed, found {limit}")


def _choosable(adapters: str | Path | None, base: str | None) -> tuple[dict[str, Manifest], list[str]]:
    usable: dict[str, Manifest] = {}
    notes = []
    for entry in list_adapters(adapters):
        reason = entry.problem or (unroutable(entry.manifest) if entry.manifest else "no manifest")
        if reason is None and entry.manifest is not None:
            usable[entry.name] = entry.manifest
        else:
            notes.append(f"{entry.name} is left out: {reason}")
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
    same = {name: m for name, m in usable.items() if name not in other}
    if not same:
        raise AdapterError(f"none of the {len(usable)} adapters belongs to the base {base!r}")
    return same, notes


def _mixable(weights: dict[str, float], manifests: dict[str, Manifest]) -> tuple[dict[str, float], list[str]]:
    """Keep those of the proposed adapters that can be mixed with the first."""

    def kind(name: str) -> tuple[object, ...]:
        m = manifests[name]
        return m.method, m.rank, m.placement, m.initialisation.id, m.query_side, m.pooling, m.prompts

    first = next(iter(weights), None)
    mixable = {name: weight for name, weight in weights.items() if first is not None and kind(name) == kind(first)}
    notes = [f"{name} cannot be mixed with {first}; compare them to see why" for name in weights if name not in mixable]
    return {name: weight / sum(mixable.values()) for name, weight in mixable.items()}, notes


def _original(manifest: Manifest) -> str | None:
    """Return the name of the adapter that this one was pruned from, which has the same domain."""
    pruned = manifest.extra.get("pruned")
    return str(pruned.get("of")) if isinstance(pruned, dict) else None
