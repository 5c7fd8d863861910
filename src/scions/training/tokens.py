"""Tokenize texts once, and cut batches of them into pieces of similar length.

The texts of a step, queries and passages together, are sorted by length and cut where padding or size would grow too
much; each piece is one pass through the model. Short queries are never padded to the length of passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from scions.engine.batches import BATCH_TOKENS, batches_by_length


class Tokens:
    """The token ids of distinct texts, cut at ``max_length`` tokens; ``truncated`` counts those that were longer."""

    def __init__(self, model: SentenceTransformer, texts: Sequence[str], max_length: int) -> None:
        self.tokenizer: Any = model.tokenizer
        self.ids: list[list[int]] = []
        self.truncated = 0
        for start in range(0, len(texts), 4096):
            batch = list(texts[start : start + 4096])
            encoded = self.tokenizer(
                batch, truncation=True, max_length=max_length, padding=False, return_attention_mask=False
            )
            self.ids += encoded["input_ids"]
            if encoded.encodings is not None:
                self.truncated += sum(bool(item.overflowing) for item in encoded.encodings)
        self.lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)

    @classmethod
    def of_ids(cls, tokenizer: Any, ids: list[list[int]]) -> Tokens:
        """Wrap texts that are tokenized already."""
        tokens = cls.__new__(cls)
        tokens.tokenizer, tokens.ids, tokens.truncated = tokenizer, ids, 0
        tokens.lengths = np.array([len(text) for text in ids], dtype=np.int64)
        return tokens

    def pieces(self, places: np.ndarray, piece_tokens: int = BATCH_TOKENS) -> list[np.ndarray]:
        """Return positions into ``places`` (numbers of texts), sorted by length and cut into pieces."""
        return batches_by_length(self.lengths[places], tokens=piece_tokens)

    def passes(self, places: np.ndarray, packed: bool) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Return the pieces with their features, as `encode_pieces` takes them."""
        return [(torch.from_numpy(piece.copy()), self.features(places[piece], packed)) for piece in self.pieces(places)]

    def features(self, places: np.ndarray, packed: bool) -> dict[str, torch.Tensor]:
        """Return model input for the texts at ``places``, the longest first.

        Padded: ``input_ids`` and ``attention_mask``, ``[texts, longest]``; packed: ``input_ids`` ``[tokens]`` and
        ``lengths`` ``[texts]`` (see `scions.engine.forward`).
        """
        if packed:
            ids = np.concatenate([self.ids[i] for i in places])
            return {"input_ids": torch.from_numpy(ids), "lengths": torch.from_numpy(self.lengths[places])}
        padded = self.tokenizer.pad({"input_ids": [self.ids[i] for i in places]}, return_tensors="pt")
        return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}


def encode_pieces(model: nn.Module, pieces: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> torch.Tensor:
    """Embed every piece, given as the positions of its rows and its features; return the rows in their places.

    ``model`` maps features to ``sentence_embedding``; the result is ``[texts, dimensions]``, float32.
    """
    positions = torch.cat([position for position, _ in pieces])
    vectors = torch.cat([model(dict(features))["sentence_embedding"].float() for _, features in pieces])
    return vectors[torch.argsort(positions)]


@torch.no_grad()
def encode_all(model: nn.Module, tokens: Tokens, packed: bool, piece_tokens: int = BATCH_TOKENS) -> np.ndarray:
    """Return unit vectors of all texts, ``[texts, dimensions]`` float32, without gradients."""
    device = next(model.parameters()).device
    parts: list[np.ndarray] = []
    pieces = tokens.pieces(np.arange(len(tokens.ids)), piece_tokens)
    for piece in pieces:
        features = {name: value.to(device) for name, value in tokens.features(piece, packed).items()}
        vectors = nn.functional.normalize(model(features)["sentence_embedding"].float(), dim=-1)
        parts.append(vectors.cpu().numpy())
    result = np.empty((len(tokens.ids), parts[0].shape[1]), dtype=np.float32)
    result[np.concatenate(pieces)] = np.concatenate(parts)
    return result
