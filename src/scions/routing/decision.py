"""Which adapter a collection of texts, or a single one, belongs to: pure functions over the base's vectors.

The rule is a Gaussian with one spherical variance about each domain's mean, against a background about the origin
(`scions.routing.domains`). A collection is one decision: its vectors then lie in one space. Decisions text by text
give vectors of different spaces, which must not be compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scions.errors import UsageError
from scions.routing.domains import Domains

# What stands in an adapter's place to have it decided: once for all texts of a call, or for each of its rows.
AUTO, AUTO_ROWS = "auto", "auto-rows"

_TEMPERATURES = np.geomspace(0.5, 500, 61)


@dataclass(frozen=True)
class Calibration:
    """``least``: nats a text by which a domain must beat the background, in the mean over the texts, to be chosen.

    ``temperature`` divides the evidence before it becomes a confidence; it decides nothing.
    """

    least: float
    temperature: float


# Settled on base vectors of twelve domains (patents, stackoverflow, banking77, medical, medquad, cosqa, docstrings of
# six packages; 500 training texts each) and STS-B dev sentences as texts of no domain; `calibrate` gives one's own.
# The temperatures were settled on development texts; on test texts and STS sets the calibration error is 0.03 for
# single texts and 0.05 for collections of 20 (benchmarks/mixing.py, stage routing).
COLLECTION = Calibration(least=3.0, temperature=10.0)
SINGLE = Calibration(least=8.0, temperature=9.0)


@dataclass(frozen=True)
class RoutingDecision:
    """``adapter`` None is the bare base. ``confidence`` (0 to 1) is that of the choice, the base's included.

    ``names`` and ``nats`` ``[domains]``: what there was to choose from, and nats a text by which each beats the
    background. Where there was nothing to choose from, the base is certain.
    """

    adapter: str | None
    confidence: float
    names: tuple[str, ...] = field(default=(), repr=False)
    nats: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    @property
    def evidence(self) -> dict[str, float]:
        """``nats`` by name."""
        return dict(zip(self.names, map(float, self.nats), strict=True))


def decide(vectors: np.ndarray, domains: Domains, calibration: Calibration = COLLECTION) -> RoutingDecision:
    """One adapter, or the bare base, for texts that belong together.

    Args:
        vectors: unit vectors of the bare base, ``[texts, dimensions]``.
        domains: those to choose from.
        calibration: for how many texts it was settled matters little above 20; for a single text give `SINGLE`.

    Raises:
        UsageError: no texts, or vectors of another number of dimensions.
    """
    mean = domains.evidence(vectors).mean(axis=0, keepdims=True)
    return _decisions(mean, len(vectors), domains, calibration)[0]


def decide_rows(vectors: np.ndarray, domains: Domains, calibration: Calibration = SINGLE) -> list[RoutingDecision]:
    """One decision a text: for rows that are classified or stand alone, since their spaces differ."""
    return _decisions(domains.evidence(vectors), 1, domains, calibration)


def calibration_for(texts: int) -> Calibration:
    """That of a decision over so many texts."""
    return SINGLE if texts == 1 else COLLECTION


def calibrate(
    held_out: Mapping[str, np.ndarray],
    general: np.ndarray,
    domains: Domains,
    size: int = 1,
    draws: int = 100,
    seed: int = 0,
) -> Calibration:
    """Settle ``least`` and ``temperature`` on texts that neither trained nor test anything.

    ``least`` is where as large a share of the domains' texts is turned away as of general ones is let in;
    ``temperature`` gives the true choice the highest mean log-confidence.

    Args:
        held_out: by domain, unit vectors of the bare base ``[texts, dimensions]``.
        general: of texts of no domain.
        domains: those to choose from.
        size: texts in a collection; 1 for single texts.
        draws: collections drawn of each domain (and of ``general``), where ``size`` is above 1.
        seed: of the drawing.

    Raises:
        UsageError: a domain that is not among ``domains``.
    """
    unknown = sorted(set(held_out) - set(domains.names))
    if unknown:
        raise UsageError(f"no domain {unknown[0]!r}; there are {', '.join(domains.names)}")
    rng = np.random.default_rng(seed)

    def drawn(vectors: np.ndarray) -> np.ndarray:
        evidence = domains.evidence(vectors)
        if size == 1:
            return evidence
        return np.array([evidence[rng.integers(len(evidence), size=size)].mean(axis=0) for _ in range(draws)])

    known = [(domains.names.index(name), drawn(vectors)) for name, vectors in held_out.items()]
    inside = [evidence.max(axis=1) for _, evidence in known]
    outside = drawn(general)
    tried = np.unique(np.concatenate([*inside, outside.max(axis=1)]))
    away = np.mean([[(own < least).mean() for least in tried] for own in inside], axis=0)
    let_in = np.array([(outside.max(axis=1) >= least).mean() for least in tried])
    apart = np.abs(away - let_in)
    # Where nothing is mistaken over a whole range, its middle is the farthest from both sides.
    least = float(tried[apart <= apart.min() + 1e-12][[0, -1]].mean())
    right = [(place + 1, evidence) for place, evidence in known] + [(0, outside)]

    def log_confidence(temperature: float) -> float:
        return float(
            np.mean(
                [_log_confidences(evidence, size, least, temperature)[:, place].mean() for place, evidence in right]
            )
        )

    return Calibration(least, float(max(_TEMPERATURES, key=log_confidence)))


def _decisions(evidence: np.ndarray, texts: int, domains: Domains, calibration: Calibration) -> list[RoutingDecision]:
    """One decision for each row of ``evidence`` ``[rows, domains]``, which is the mean over so many texts."""
    confidences = np.exp(_log_confidences(evidence, texts, calibration.least, calibration.temperature))
    chosen = confidences.argmax(axis=1)
    return [
        RoutingDecision(domains.names[best - 1] if best else None, float(row[best]), domains.names, nats)
        for best, row, nats in zip(chosen.tolist(), confidences, evidence, strict=True)
    ]


def _log_confidences(evidence: np.ndarray, texts: int, least: float, temperature: float) -> np.ndarray:
    """``[rows, 1 + domains]``; the first is the base's."""
    # Texts that stand together are alike, so n of them do not say n times as much; the root is between that and once.
    scaled = np.concatenate([np.full((len(evidence), 1), least), evidence], axis=1) * (texts**0.5 / temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))
