"""Check the arguments of `DomainEncoder`'s methods, and convert vectors to the form that a call asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from torch import Tensor
from torch.nn import functional as F

from scions.errors import UsageError

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")

# Arguments of transformers' `load_adapter`: those that hold here anyway, and those that must be off.
_LOAD_ANY = ("local_files_only", "low_cpu_mem_usage")
_LOAD_OFF = ("adapter_kwargs", "adapter_state_dict", "hotswap", "is_trainable", "load_config", "peft_config")


def check_load(options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option of ``load_adapter`` that cannot be served."""
    for name, value in options.items():
        if name in _LOAD_ANY or (name in _LOAD_OFF and (not value or value == "auto")):
            continue
        raise UsageError(f"load_adapter takes no `{name}={value!r}`; it takes peft_model_id, adapter_name and replace")


def check_encode(
    model: SentenceTransformer,
    rows: Sequence[Any],
    extra: Mapping[str, Any],
    batch_size: int | None,
    precision: str | None,
    truncate_dim: int | None,
) -> None:
    """Raise UsageError for an unknown argument of ``encode`` or a value that cannot be served; lists the known ones.

    Args:
        model: the encoder.
        rows: inputs.
        extra: keyword arguments beyond those of ``SentenceTransformer.encode``.
        batch_size, precision, truncate_dim: as for ``encode``.
    """
    of_modules = model.get_model_kwargs()
    unknown = sorted(set(extra) - {"task", "processing_kwargs", *of_modules})
    if unknown:
        known = ", ".join(["adapter", "strength", "task", *of_modules])
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
    """Return what in a call only SentenceTransformer itself can do; empty where there is nothing."""
    if output_value != "sentence_embedding":
        return f"`output_value={output_value!r}`"
    if pool is not None or isinstance(device, (list, tuple)):
        return "encoding with several processes"
    special = sorted(set(extra) - {"task"})
    if special:
        return f"the argument {special[0]}"
    other = next((row for row, text in enumerate(rows, 1) if not isinstance(text, str)), None)
    return "" if other is None else f"row {other}, a {type(rows[other - 1]).__name__} and no text"


def converted(vectors: Tensor, normalize: bool, precision: str | None, to_numpy: bool, to_tensor: bool) -> Any:
    """Return ``vectors`` ``[rows, dimensions]`` in the requested form: a tensor, an array or a list of tensors."""
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


def progress_bar(rows: int, shown: bool | None) -> Any:
    """Return a progress bar over ``rows``; ``shown`` None: where sentence-transformers would show one."""
    from tqdm.autonotebook import tqdm

    if shown is None:
        level = logging.getLogger("sentence_transformers.sentence_transformer.model").getEffectiveLevel()
        shown = level in (logging.INFO, logging.DEBUG)
    return tqdm(total=rows, desc="Rows", disable=not shown)
