"""How much of each member goes into a mixture, by what its domain has to do with some texts."""

from __future__ import annotations

import numpy as np

from scions.encoder.domains import Domains
from scions.errors import UsageError

STRATEGIES = ("uniform", "weighted", "similarity", "clusters", "greedy", "ties")


def by_similarity(vectors: np.ndarray, domains: Domains) -> list[float]:
    """In proportion to the mean pairwise cosine of the texts with each domain's; a domain below 0 gets none.

    Args:
        vectors: unit vectors of the bare base, ``[texts, dimensions]``.
        domains: of the members, in their order.

    Raises:
        UsageError: no domain has anything to do with the texts.
    """
    cosines = np.maximum(domains.cosines(vectors), 0.0)
    if not cosines.sum() > 0:
        raise UsageError("none of these adapters' domains is similar to the texts; weights cannot be drawn from them")
    return [float(x) for x in cosines / cosines.sum()]


def cluster_shares(vectors: np.ndarray, domains: Domains) -> np.ndarray:
    """``[domains]``, sum 1: the share of texts that fall into each domain's component of a Gaussian mixture.

    AdapterSoup (arXiv 2302.07027) fits a mixture with as many components as domains to the domains' texts. Here the
    texts' domains are known, so the components that fit best are the stored means and the common variance themselves;
    to fit them anew to the new texts would only move them away from the domains.
    """
    likeliest = domains.evidence(vectors).argmax(axis=1)
    return np.asarray(np.bincount(likeliest, minlength=len(domains.names)) / len(vectors))
