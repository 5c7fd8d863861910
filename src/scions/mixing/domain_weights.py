"""Weights of a mixture's members, by the similarity of their training domains to some texts."""

from __future__ import annotations

import numpy as np

from scions.errors import UsageError
from scions.routing.domains import Domains

_STEPS = 100  # of expectation maximization; the shares then change by less than 0.001
STRATEGIES = ("uniform", "weighted", "similarity", "clusters", "greedy", "ties")


def similarity_weights(vectors: np.ndarray, domains: Domains) -> list[float]:
    """Return weights in proportion to the mean pairwise cosine of the texts with each domain's, 0 below 0.

    Args:
        vectors: unit vectors of the bare base, ``[texts, dimensions]``.
        domains: of the members, in their order.

    Raises:
        UsageError: no domain is similar to the texts.
    """
    cosines = np.maximum(domains.cosines(vectors), 0.0)
    if not cosines.sum() > 0:
        raise UsageError("none of these adapters' domains is similar to the texts; weights cannot be derived from them")
    return [float(x) for x in cosines / cosines.sum()]


def cluster_weights(vectors: np.ndarray, domains: Domains) -> list[float]:
    """Return weights in proportion to `cluster_shares`, 0 below 1 % of the texts.

    Raises:
        UsageError: the texts belong to none of the domains.
    """
    shares = cluster_shares(vectors, domains)[1:]
    shares = np.where(shares < 0.01, 0.0, shares)
    if not shares.sum() > 0:
        raise UsageError("the texts fall to none of these adapters' domains; weights cannot be derived from them")
    return [float(x) for x in shares / shares.sum()]


def cluster_shares(vectors: np.ndarray, domains: Domains) -> np.ndarray:
    """Return the shares of a Gaussian mixture's components in the texts, ``[1 + domains]``, first that of no domain.

    AdapterSoup (arXiv 2302.07027) fits a mixture with as many components as domains to the domains' texts. Here the
    texts' domains are known, so the components are the stored means and the common variance, and only their shares are
    fitted to the new texts. The background about the origin is one more component: without it, texts of no domain would
    all fall to the broadest, whose mean lies nearest to the origin.
    """
    evidence = domains.evidence(vectors)
    likelihoods = np.concatenate([np.zeros((len(evidence), 1)), evidence], axis=1)
    likelihoods = np.exp(likelihoods - likelihoods.max(axis=1, keepdims=True))
    shares = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(_STEPS):
        parts = likelihoods * shares
        shares = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares
