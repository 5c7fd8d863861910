"""Objectives by hand, and against those of sentence-transformers."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch.nn import functional as F

from scions.training.objectives import contrastive_loss


def _columns(columns: int, rows: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(columns, rows, 8, generator=torch.Generator().manual_seed(seed))


def _no_mask(columns: torch.Tensor) -> torch.Tensor:
    return torch.zeros(columns.shape[1], columns.shape[1] * (len(columns) - 1), dtype=torch.bool)


def test_contrastive_by_hand():
    columns = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [1.0, 1.0]]])
    # Cosines: row 0 has 1 and 1/sqrt 2, row 1 has 0 and 1/sqrt 2 (its own).
    half = 2 / math.sqrt(2)
    expected = (-2 + math.log(math.exp(2) + math.exp(half)) - half + math.log(1 + math.exp(half))) / 2
    assert float(contrastive_loss(columns, _no_mask(columns), 2.0)) == pytest.approx(expected, abs=1e-6)


def test_a_masked_candidate_counts_for_nothing():
    columns = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [1.0, 1.0]]])
    mask = torch.tensor([[False, True], [False, False]])
    half = 2 / math.sqrt(2)
    expected = (0 - half + math.log(1 + math.exp(half))) / 2
    assert float(contrastive_loss(columns, mask, 2.0)) == pytest.approx(expected, abs=1e-6)
    columns.requires_grad_(True)
    contrastive_loss(columns, torch.tensor([[False, True], [True, False]]), 2.0).backward()
    assert not columns.grad.any()


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("scale", [20.0, 5.0])
def test_contrastive_is_multiple_negatives_ranking(model, columns, scale):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    vectors = _columns(columns).requires_grad_(True)
    theirs = MultipleNegativesRankingLoss(model, scale=scale).compute_loss_from_embeddings(list(vectors), None)
    (gradient,) = torch.autograd.grad(theirs, vectors)
    ours = contrastive_loss(vectors, _no_mask(vectors), scale)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    assert torch.allclose(torch.autograd.grad(ours, vectors)[0], gradient, atol=1e-5)


def _cosent(columns: torch.Tensor, scores: torch.Tensor, scale: float) -> torch.Tensor:
    """CoSENT as it is defined: over all pairs of rows with score i < score j."""
    cosine = scale * F.cosine_similarity(columns[0], columns[1], dim=-1)
    gaps = (cosine[:, None] - cosine[None, :]).masked_fill(scores[:, None] >= scores[None, :], float("-inf"))
    return torch.logsumexp(torch.cat([gaps.new_zeros(1), gaps.flatten()]), dim=0)


def _library_cosent(columns: torch.Tensor, scores: torch.Tensor, scale: float) -> torch.Tensor:
    return CoSENTLoss(None, scale=scale).compute_loss_from_embeddings(list(columns), scores)


@pytest.mark.parametrize(
    "scores", [[0.1, 0.5, 0.9, 0.3, 0.3, 0.0], [0, 1, 0, 1, 1, 0], [1] * 6, [i * i % 7 for i in range(64)]]
)
@pytest.mark.parametrize("scale", [20.0, 3.0])
def test_cosent_is_that_of_sentence_transformers(scores, scale):
    vectors, labels = _columns(2, len(scores)).requires_grad_(True), torch.tensor(scores, dtype=torch.float32)
    theirs, ours = _library_cosent(vectors, labels, scale), _cosent(vectors, labels, scale)
    (gradient,) = torch.autograd.grad(theirs, vectors)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    assert torch.allclose(torch.autograd.grad(ours, vectors)[0], gradient, atol=1e-5)


def test_cosent_by_hand_and_by_order_alone():
    vectors = _columns(2, 3)
    cosine = F.cosine_similarity(vectors[0], vectors[1], dim=-1).tolist()
    pairs = [(0, 1), (0, 2), (1, 2)]  # (lower, higher) by these scores
    expected = math.log(1 + sum(math.exp(3 * (cosine[i] - cosine[j])) for i, j in pairs))
    for scores in ([0.0, 0.5, 1.0], [-100.0, 3.0, 4.0]):
        assert float(_library_cosent(vectors, torch.tensor(scores), 3.0)) == pytest.approx(expected, abs=1e-5)
    assert float(_library_cosent(vectors, torch.ones(3), 3.0)) == 0.0
