"""Sentence vectors from packed hidden states, by the modules of a SentenceTransformer after its transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scions.engine.attention import PackedLayout
from scions.engine.forward import unpack

_AFTER_POOLING = ("Normalize", "Dense", "LayerNorm", "Dropout")


def poolable(model: Any) -> bool:
    """Return whether `pool` covers the modules after the transformer: pooling over all tokens, then layers on it."""
    modules = list(model)[1:]
    if not modules or getattr(model[0], "module_output_name", None) != "token_embeddings":
        return False
    kinds = [type(module).__name__ for module in modules]
    return kinds[0] == "Pooling" and modules[0].include_prompt and all(kind in _AFTER_POOLING for kind in kinds[1:])


def pool(model: Any, hidden: Tensor, layout: PackedLayout, dtype: torch.dtype) -> Tensor:
    """Return one vector per text, ``[texts, dimensions]`` float32.

    Args:
        model: a SentenceTransformer for which `poolable` is true.
        hidden: ``[tokens, width]``, the last layer's output.
        layout: how the texts are packed.
        dtype: of the modules' own weights.
    """
    pooling, *later = list(model)[1:]
    starts = torch.cumsum(layout.lengths, 0) - layout.lengths
    features: dict[str, Any]
    if pooling.pooling_mode == "mean":
        # The sum over neighboring rows is an embedding bag; padding would cost as much as the tokens.
        rows = torch.arange(len(hidden), device=hidden.device)
        total = F.embedding_bag(rows, hidden.float(), starts, mode="sum")
        features = {"sentence_embedding": total / layout.lengths[:, None]}
    elif pooling.pooling_mode == "cls":
        features = {"sentence_embedding": hidden[starts]}
    else:
        tokens, mask = unpack(hidden.float(), layout)
        features = pooling({"token_embeddings": tokens, "attention_mask": mask})
    features["sentence_embedding"] = features["sentence_embedding"].to(dtype)
    for module in later:
        features = module(features)
    return features["sentence_embedding"].float()
