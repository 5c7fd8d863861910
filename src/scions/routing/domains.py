"""Training domains of adapters, as Gaussians over the bare base's vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from scions.errors import AdapterError, UsageError
from scions.store import DomainStatistics, Manifest
from scions.unit_rows import unit_rows

# Unit vectors have a mean of length 1 at most and a variance below 1. Numbers far beyond are damage, and would decide
# against all other adapters too.
_MAX_MEAN_LENGTH, _MAX_VARIANCE = 2.0, 1.0


class TextEncoder(Protocol):
    """An encoder with the arguments that sentence-transformers' ``encode`` takes."""

    def encode(
        self, inputs: list[str], /, *, prompt: str, normalize_embeddings: bool, show_progress_bar: bool
    ) -> Any: ...


@dataclass(frozen=True)
class Domains:
    """Each domain a Gaussian about the mean of its texts' unit vectors, all with one spherical variance.

    ``means`` is ``[domains, dimensions]``, ``variance`` that of one coordinate. The background, for texts of no
    domain, is the same Gaussian about the origin, where unit vectors of all directions have their mean.
    """

    names: tuple[str, ...]
    means: np.ndarray
    variance: float

    @classmethod
    def of(cls, manifests: Mapping[str, Manifest]) -> Domains:
        """Build from the manifests of adapters, by name.

        Raises:
            AdapterError: one holds no statistics, or of another number of dimensions.
            UsageError: there are none.
        """
        if not manifests:
            raise UsageError("no adapters, so no domains to compare with")
        domains = {name: statistics(name, manifest) for name, manifest in manifests.items()}
        widths = {name: len(domain.mean) for name, domain in domains.items()}
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise AdapterError(f"the domain statistics of these adapters have different dimensions: {listed}")
        means = np.array([domain.mean for domain in domains.values()], dtype=np.float64)
        variance = float(np.mean([domain.spherical_variance for domain in domains.values()]))
        return cls(tuple(domains), means, max(variance, 1e-12))

    @classmethod
    def of_routable(cls, domains: Mapping[str, DomainStatistics | None], dimensions: int) -> Domains | None:
        """Build from those that texts can be routed by (`unusable`), in float32; None where there are none."""
        usable = {name: domain for name, domain in domains.items() if domain and not unusable(domain, dimensions)}
        if not usable:
            return None
        means = np.array([domain.mean for domain in usable.values()], dtype=np.float32)
        return cls(tuple(usable), means, float(np.mean([domain.spherical_variance for domain in usable.values()])))

    def evidence(self, vectors: np.ndarray) -> np.ndarray:
        """Log-likelihood of each text in each domain, less that in the background: ``[texts, domains]`` in nats.

        ``vectors`` are `domain_vectors` of the texts, ``[texts, dimensions]``.

        Raises:
            UsageError: vectors of another number of dimensions, or none.
        """
        if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != self.means.shape[1]:
            raise UsageError(
                f"vectors of shape {list(vectors.shape)}; expected [texts, {self.means.shape[1]}] of one text or more"
            )
        return np.asarray((vectors @ self.means.T - self._squares / 2) / self.variance)

    @cached_property
    def _squares(self) -> np.ndarray:
        return np.asarray((self.means**2).sum(axis=1))

    def cosines(self, vectors: np.ndarray) -> np.ndarray:
        """Mean pairwise cosine of the texts with each domain's texts: ``[domains]``."""
        return np.asarray(self.means @ vectors.mean(axis=0))

    def similarities(self) -> np.ndarray:
        """Cosine of the domains' means, ``[domains, domains]``."""
        unit = unit_rows(self.means)
        return np.asarray(unit @ unit.T)


def domain_vectors(encoder: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Return the vectors that domain statistics are made of and texts are routed by.

    They are unit vectors ``[texts, dimensions]`` float32 of the bare base, without any prompt, cut at the base's own
    length (`scions.routing.sample.RoutingSample` holds the same for rows of token ids). ``encoder`` is that base.
    """
    vectors = encoder.encode(list(texts), prompt="", normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def domain_statistics(vectors: np.ndarray) -> DomainStatistics:
    """Return the domain statistics of training texts from their `domain_vectors`."""
    mean = vectors.mean(axis=0)
    variance = float(((vectors - mean) ** 2).sum(axis=1).mean() / vectors.shape[1])
    return DomainStatistics(mean=_rounded(mean), spherical_variance=variance, n=len(vectors))


def unusable(domain: DomainStatistics | None, dimensions: int | None = None) -> str | None:
    """Return why texts cannot be routed by these statistics, None where they can.

    ``dimensions`` is the length of the base's vectors; None: any.
    """
    if domain is None or not domain.mean:
        return "no domain statistics"
    fits = dimensions is None or len(domain.mean) == dimensions
    sound = 0 < domain.spherical_variance <= _MAX_VARIANCE and math.hypot(*domain.mean) <= _MAX_MEAN_LENGTH
    return None if fits and sound else "unusable domain statistics"


def unroutable(manifest: Manifest, base_sha256: str | None = None, dimensions: int | None = None) -> str | None:
    """Return why texts cannot be routed to this adapter, None where they can.

    Args:
        manifest: of the adapter.
        base_sha256: `scions.store.base_fingerprint` of the base; None: any.
        dimensions: length of the base's vectors; None: any.
    """
    if base_sha256 is not None and manifest.base.weights_sha256 != base_sha256:
        return "another base"
    if manifest.method == "full":
        return "a whole model"
    return unusable(manifest.domain, dimensions)


def statistics(name: str, manifest: Manifest) -> DomainStatistics:
    """Return the domain of an adapter. Raises AdapterError where its manifest holds none, or broken ones."""
    domain = manifest.domain
    if domain is None or not domain.mean:
        raise AdapterError(f"{name}: its scions.json holds no domain statistics; train it anew to have them")
    if not domain.spherical_variance > 0:
        raise AdapterError(
            f"{name}: scions.json: domain.spherical_variance: {domain.spherical_variance} is not above 0"
        )
    return domain


def combined(parts: Sequence[DomainStatistics], weights: Sequence[float]) -> DomainStatistics:
    """Return the domain of a mixture: the weighted mean of means, and the pooled variance within and between parts.

    Raises:
        AdapterError: they have different dimensions.
    """
    widths = sorted({len(part.mean) for part in parts})
    if len(widths) > 1:
        raise AdapterError(f"domain statistics of {' and '.join(map(str, widths))} dimensions cannot be combined")
    means = np.array([part.mean for part in parts], dtype=np.float64)
    share = np.array(weights, dtype=np.float64) / sum(weights)
    mean = share @ means
    between = ((means - mean) ** 2).mean(axis=1)
    variance = float(share @ (np.array([part.spherical_variance for part in parts]) + between))
    return DomainStatistics(mean=_rounded(mean), spherical_variance=variance, n=sum(part.n for part in parts))


def _rounded(mean: np.ndarray) -> list[float]:
    return [round(float(x), 6) for x in mean]
