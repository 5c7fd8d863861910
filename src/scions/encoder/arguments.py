"""What a call of ``encode`` asks for: refused where nothing can serve it, told where only the parent class can.

And its answer in the form that was asked for.
"""

from __future__ import annotations

import logging
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers.util import quantize_embeddings
from torch import Tensor
from torch.nn import functional as F

from scions.errors import UsageError

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def check_call(
    model: Any,
    rows: Sequence[Any],
    extra: Mapping[str, Any],
    batch_size: int | None,
    precision: str | None,
    truncate_dim: int | None,
) -> None:
    """Raises UsageError for an argument that nobody knows or a value that cannot be served; says what is known."""
    taken = model.get_model_kwargs()
    unknown = sorted(set(extra) - {"task", "processing_kwargs", *taken})
    if unknown:
        known = ", ".join(["adapter", "strength", "task", *taken])
        raise UsageError(
            f"encode takes no {', '.join(unknown)}; beyond sentence-transformers' arguments it takes {known}"
        )
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}")
    if truncate_dim is not None and truncate_dim < 1:
        raise UsageError(f"truncate_dim must be at least 1, got {truncate_dim}")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown; choose from {', '.join(PRECISIONS)}")
    for row, text in enumerate(rows, 1):
        if text is None or isinstance(text, (float, int)):
            raise UsageError(f"row {row} is {text!r}; expected a text")


def only_parent(rows: Sequence[Any], output_value: Any, device: Any, pool: Any, extra: Mapping[str, Any]) -> str:
    """What in a call only SentenceTransformer itself can do; empty where there is nothing."""
    if output_value != "sentence_embedding":
        return f"output_value={output_value!r}"
    if pool is not None or isinstance(device, (list, tuple)):
        return "encoding with several processes"
    special = sorted(set(extra) - {"task"})
    if special:
        return f"the argument {special[0]}"
    other = next((row for row, text in enumerate(rows, 1) if not isinstance(text, str)), None)
    return "" if other is None else f"row {other}, a {type(rows[other - 1]).__name__} and no text"


def converted(vectors: Tensor, normalize: bool, precision: str | None, to_numpy: bool, to_tensor: bool) -> Any:
    """``vectors`` ``[rows, dimensions]`` in the form that was asked for: a tensor, an array or a list of tensors."""
    if normalize:
        vectors = F.normalize(vectors, dim=1)
    result: Any = vectors
    if precision not in (None, "float32") and len(vectors):
        result = quantize_embeddings(vectors.cpu().numpy(), precision=precision)  # type: ignore[arg-type]
    if to_tensor:
        return torch.as_tensor(result)
    if to_numpy:
        return result.cpu().numpy() if isinstance(result, Tensor) else result
    return list(torch.as_tensor(result))


def progress(rows: int, shown: bool | None) -> Any:
    """A bar of ``rows``; None shows it where sentence-transformers would."""
    from tqdm.autonotebook import tqdm

    if shown is None:
        level = logging.getLogger("sentence_transformers.sentence_transformer.model").getEffectiveLevel()
        shown = level in (logging.INFO, logging.DEBUG)
    return tqdm(total=rows, desc="Rows", disable=not shown)


class SentenceTransformersMeta(ABCMeta):
    """The class of a class whose printed name holds that of sentence-transformers."""

    def __repr__(cls) -> str:
        # BERTopic looks for the package's name in this text where others ask isinstance, and without it silently takes
        # a model of its own.
        return f"<class '{cls.__module__}.{cls.__qualname__}', a sentence_transformers.SentenceTransformer>"
