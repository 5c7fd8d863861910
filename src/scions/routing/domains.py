"""What is known of adapters' training domains: the statistics in their manifests, as vectors of the bare base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scions.errors import AdapterError, UsageError
from scions.store import DomainStatistics, Manifest
from scions.unit_rows import unit_rows

_LONGEST = 2.0  # of a mean that is believed


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
        """From the manifests of adapters, by name.

        Raises:
            AdapterError: one holds no statistics, or of another number of dimensions.
            UsageError: there are none.
        """
        if not manifests:
            raise UsageError("no adapters, so no domains to compare with")
        found = {name: statistics(name, manifest) for name, manifest in manifests.items()}
        widths = {name: len(one.mean) for name, one in found.items()}
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise AdapterError(f"the domain statistics of these adapters have different dimensions: {listed}")
        means = np.array([one.mean for one in found.values()], dtype=np.float64)
        variance = float(np.mean([one.spherical_variance for one in found.values()]))
        return cls(tuple(found), means, max(variance, 1e-12))

    @classmethod
    def of_fitting(cls, found: Mapping[str, DomainStatistics | None], dimensions: int) -> Domains | None:
        """Of those that `fits`, in float32; None where none does."""
        known = {name: one for name, one in found.items() if one is not None and fits(one, dimensions)}
        if not known:
            return None
        means = np.array([one.mean for one in known.values()], dtype=np.float32)
        return cls(tuple(known), means, float(np.mean([one.spherical_variance for one in known.values()])))

    def evidence(self, vectors: np.ndarray) -> np.ndarray:
        """Log-likelihood of each text in each domain, less that in the background: ``[texts, domains]`` in nats.

        Args:
            vectors: unit vectors of the bare base, ``[texts, dimensions]``.

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


def fits(found: DomainStatistics | None, dimensions: int) -> bool:
    """Whether an adapter can be chosen by these statistics, on a base whose vectors have so many dimensions.

    Unit vectors have a mean of length 1 at most, and a variance below 1. Numbers far beyond are damage, and would
    decide against all other adapters too.
    """
    if found is None or len(found.mean) != dimensions:
        return False
    return 0 < found.spherical_variance <= 1 and math.hypot(*found.mean) <= _LONGEST


def statistics(name: str, manifest: Manifest) -> DomainStatistics:
    """The domain of an adapter. Raises AdapterError where its manifest holds none, or broken ones."""
    found = manifest.domain
    if found is None or not found.mean:
        raise AdapterError(f"{name}: its scions.json holds no domain statistics; train it anew to have them")
    if not found.spherical_variance > 0:
        raise AdapterError(f"{name}: scions.json: domain.spherical_variance: {found.spherical_variance} is not above 0")
    return found


def combined(parts: Sequence[DomainStatistics], weights: Sequence[float]) -> DomainStatistics:
    """The domain of a mixture: the weighted mean of means, and the pooled variance within and between the parts.

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
    return DomainStatistics(
        mean=[round(float(x), 6) for x in mean], spherical_variance=variance, n=sum(part.n for part in parts)
    )
