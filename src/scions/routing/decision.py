"""Decide which adapter a collection of texts, or a single one, belongs to, from the bare base's vectors.

Each domain is a Gaussian with one spherical variance about its mean, compared with a background about the origin
(`scions.routing.domains`). A collection is one decision, so that its vectors lie in one space. Decisions text by text
give vectors of different spaces, which must not be compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scions.errors import UsageError
from scions.routing.domains import Domains

# Values of ``adapter`` that leave the choice to the texts: once for all texts of a call, or for each row.
AUTO, AUTO_ROWS = "auto", "auto-rows"

_TEMPERATURES = np.geomspace(0.5, 500, 61)


@dataclass(frozen=True)
class Calibration:
    """When a domain is chosen, and how confident a decision is.

    Attributes:
        least: nats a text by which a domain must beat the background, in the mean over the texts, to be chosen.
        temperature: divides the evidence before it becomes a confidence; it does not change the decision.
    """

    least: float
    temperature: float


# Calibrated on base vectors of twelve domains (patents, stackoverflow, banking77, medical, medquad, cosqa, docstrings
# of six packages; 500 training texts each) and STS-B dev sentences as texts of no domain; `calibrate` does the same for
# other domains. The temperatures were chosen on development texts; on test texts and STS sets the calibration error is
# 0.03 for single texts and 0.05 for collections of 20 (benchmarks/mixing.py, stage routing).
COLLECTION = Calibration(least=3.0, temperature=10.0)
SINGLE = Calibration(least=8.0, temperature=9.0)


@dataclass(frozen=True)
class RoutingDecision:
    """The chosen adapter.

    Attributes:
        adapter: its name; None is the bare base.
        confidence: of the choice, the base's included, 0 to 1; 1 where there were no domains to choose from.
        names: the domains.
        nats: ``[domains]``, nats a text by which each beats the background.
    """

    adapter: str | None
    confidence: float
    names: tuple[str, ...] = field(default=(), repr=False)
    nats: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    @property
    def evidence(self) -> dict[str, float]:
        """Return ``nats`` by name."""
        return dict(zip(self.names, map(float, self.nats), strict=True))


def decide(vectors: np.ndarray, domains: Domains, calibration: Calibration = COLLECTION) -> RoutingDecision:
    """Choose one adapter, or the bare base, for texts that belong together.

    Args:
        vectors: `scions.routing.domains.domain_vectors`, ``[texts, dimensions]``.
        domains: those to choose from.
        calibration: `SINGLE` for one text; above 20 texts their number matters little.

    Raises:
        UsageError: no texts, or vectors of another number of dimensions.
    """
    mean = domains.evidence(vectors).mean(axis=0, keepdims=True)
    return _decisions(mean, len(vectors), domains, calibration)[0]


def decide_rows(vectors: np.ndarray, domains: Domains, calibration: Calibration = SINGLE) -> list[RoutingDecision]:
    """Decide text by text: for rows that are classified or stand alone, since their spaces differ."""
    return _decisions(domains.evidence(vectors), 1, domains, calibration)


def calibration_for(texts: int) -> Calibration:
    """Return the calibration for a decision over that many texts."""
    return SINGLE if texts == 1 else COLLECTION


def calibrate(
    held_out: Mapping[str, np.ndarray],
    general: np.ndarray,
    domains: Domains,
    size: int = 1,
    draws: int = 100,
    seed: int = 0,
) -> Calibration:
    """Choose ``least`` and ``temperature`` on texts that are in no training or test set.

    ``least`` rejects as large a share of the domains' texts as it accepts of general ones; ``temperature`` gives the
    true choice the highest mean log-confidence.

    Args:
        held_out: by domain, `domain_vectors` ``[texts, dimensions]``.
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

    inside = [(domains.names.index(name), drawn(vectors)) for name, vectors in held_out.items()]
    outside = drawn(general)
    highest, highest_outside = [evidence.max(axis=1) for _, evidence in inside], outside.max(axis=1)
    thresholds = np.unique(np.concatenate([*highest, highest_outside]))
    rejected = np.mean([[(nats < least).mean() for least in thresholds] for nats in highest], axis=0)
    accepted = np.array([(highest_outside >= least).mean() for least in thresholds])
    difference = np.abs(rejected - accepted)
    # Where a whole range of thresholds makes no mistake, its middle is the farthest from both sides.
    least = float(thresholds[difference <= difference.min() + 1e-12][[0, -1]].mean())
    true_choices = [(place + 1, evidence) for place, evidence in inside] + [(0, outside)]

    def log_confidence(temperature: float) -> float:
        means = [_log_confidences(nats, size, least, temperature)[:, place].mean() for place, nats in true_choices]
        return float(np.mean(means))

    return Calibration(least, float(max(_TEMPERATURES, key=log_confidence)))


def _decisions(evidence: np.ndarray, texts: int, domains: Domains, calibration: Calibration) -> list[RoutingDecision]:
    """Return a decision for each row of ``evidence`` ``[rows, domains]``, a mean over ``texts`` texts."""
    confidences = np.exp(_log_confidences(evidence, texts, calibration.least, calibration.temperature))
    chosen = confidences.argmax(axis=1)
    return [
        RoutingDecision(domains.names[best - 1] if best else None, float(row[best]), domains.names, nats)
        for best, row, nats in zip(chosen.tolist(), confidences, evidence, strict=True)
    ]


def _log_confidences(evidence: np.ndarray, texts: int, least: float, temperature: float) -> np.ndarray:
    """Return ``[rows, 1 + domains]``; the first column is the base's."""
    # Texts of a collection are alike, so n of them are less than n times the evidence of one; the root is in between.
    scaled = np.concatenate([np.full((len(evidence), 1), least), evidence], axis=1) * (texts**0.5 / temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))
