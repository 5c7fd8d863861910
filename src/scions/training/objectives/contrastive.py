"""Multiple negatives ranking with masked false negatives."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def contrastive_loss(columns: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """Cross-entropy of every anchor over all candidates of the batch (InfoNCE).

    Sources: van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; Henderson et al. 2017 (arXiv 1705.00652) for
    positives of the batch as negatives; Gao et al. 2021 (arXiv 2104.08821), eq. 1, where both columns are one text.

    Args:
        columns: ``[columns, rows, dimensions]``: anchors, positives, then any negatives.
        mask: ``[rows, rows * (columns - 1)]`` bool, True where a candidate is no negative of the row; never True for
            the row's own positive.
        scale: inverse temperature.

    Returns:
        The mean loss, a scalar.
    """
    rows = torch.arange(columns.shape[1], device=columns.device)
    return retrieval_loss(columns[0], columns[1:].flatten(0, 1), rows, mask, scale)


def retrieval_loss(
    queries: torch.Tensor, documents: torch.Tensor, positives: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Cross-entropy of every query over documents.

    Args:
        queries: ``[rows, dimensions]``.
        documents: ``[documents, dimensions]``.
        positives: ``[rows]``, the place of each row's positive among the documents.
        mask: ``[rows, documents]`` bool, True where a document is no negative of the row; never True for its positive.
        scale: inverse temperature.

    Returns:
        The mean loss, a scalar.
    """
    logits = scale * F.normalize(queries.float(), dim=-1) @ F.normalize(documents.float(), dim=-1).T
    return F.cross_entropy(logits.masked_fill(mask, float("-inf")), positives)
