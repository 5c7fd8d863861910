"""How much of each member goes into a mixture, by what its domain has to do with some texts."""

from __future__ import annotations

import numpy as np

from scions.errors import UsageError
from scions.routing.domains import Domains

_STEPS = 100  # of expectation and maximisation; the shares then move by less than a thousandth
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


def by_clusters(vectors: np.ndarray, domains: Domains) -> list[float]:
    """In proportion to `cluster_shares`; a domain with less than a hundredth of the texts gets none.

    Raises:
        UsageError: the texts fall to no domain.
    """
    shares = cluster_shares(vectors, domains)[1:]
    shares = np.where(shares < 0.01, 0.0, shares)
    if not shares.sum() > 0:
        raise UsageError("the texts fall to none of these adapters' domains; weights cannot be drawn from them")
    return [float(x) for x in shares / shares.sum()]


def cluster_shares(vectors: np.ndarray, domains: Domains) -> np.ndarray:
    """``[1 + domains]``, sum 1: the shares of a Gaussian mixture's components in texts, the first that of no domain.

    AdapterSoup (arXiv 2302.07027) fits a mixture with as many components as domains to the domains' texts. Here the
    texts' domains are known, so the components that fit best are the stored means and the common variance themselves,
    and only their shares are fitted to the new texts. Beside them stands the background about the origin: without it,
    texts of no domain would all fall to the broadest, whose mean lies nearest to the origin.
    """
    evidence = domains.evidence(vectors)
    likelihoods = np.concatenate([np.zeros((len(evidence), 1)), evidence], axis=1)
    likelihoods = np.exp(likelihoods - likelihoods.max(axis=1, keepdims=True))
    shares = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(_STEPS):
        parts = likelihoods * shares
        shares = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares
