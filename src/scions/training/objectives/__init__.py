"""Training objectives, one a file: pure functions of embeddings."""

from scions.training.objectives.contrastive import contrastive_loss, retrieval_loss
from scions.training.objectives.cosent import cosent_loss

__all__ = ["contrastive_loss", "cosent_loss", "retrieval_loss"]
