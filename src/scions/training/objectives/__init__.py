"""Training objectives as pure functions of embeddings; CoSENT is sentence-transformers' own ``CoSENTLoss``."""

from scions.training.objectives.contrastive import contrastive_loss, retrieval_loss

__all__ = ["contrastive_loss", "retrieval_loss"]
