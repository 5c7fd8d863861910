"""From packed hidden states to what a SentenceTransformer's modules behind the transformer make of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scions.engine.attention import PackedLayout
from scions.engine.forward import unpack

_AFTER_POOLING = ("Normalize", "Dense", "LayerNorm", "Dropout")


def poolable(model: Any) -> bool:
    """Whether `pool` covers what stands behind the transformer: pooling over all tokens, then layers on its result."""
    tail = list(model)[1:]
    if not tail or getattr(model[0], "module_output_name", None) != "token_embeddings":
        return False
    kinds = [type(module).__name__ for module in tail]
    return kinds[0] == "Pooling" and tail[0].include_prompt and all(kind in _AFTER_POOLING for kind in kinds[1:])


def pool(model: Any, hidden: Tensor, layout: PackedLayout, dtype: torch.dtype) -> Tensor:
    """One vector a text, ``[texts, dimensions]`` float32.

    Args:
        model: a SentenceTransformer for which `poolable` says yes.
        hidden: ``[tokens, width]``, the last layer's output.
        pack: the layout.
        dtype: of the modules' own weights.
    """
    pooling, *later = list(model)[1:]
    ends = torch.cumsum(layout.lengths, 0)
    starts = ends - layout.lengths
    features: dict[str, Any]
    if pooling.pooling_mode == "mean":
        # A sum over neighbouring rows, which is what an embedding bag is; padding would cost as much as the tokens.
        places = torch.arange(len(hidden), device=hidden.device)
        total = F.embedding_bag(places, hidden.float(), starts, mode="sum")
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
