"""Self-attention within packed texts in the compiled kernels (see `scions.engine.kernels.build`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scions.engine.kernels.build import float_attention, kernels

MAX_TOKENS, MAX_HEAD = 512, 128  # as in the sources


def attend(projected: Tensor, heads: int, starts: np.ndarray, lengths: np.ndarray) -> Tensor | None:
    """Compute self-attention within each text, ``[rows, width]``; None where no kernel covers it.

    Args:
        projected: ``[rows, 3 * width]``, queries, keys and values.
        heads: number of heads.
        starts: ``[texts]`` int64, first row of each text.
        lengths: ``[texts]`` int64, its tokens. Rows after the last text are zero in the result.
    """
    width = projected.shape[1] // 3
    run = _kernel(projected, width // heads)
    if run is None or lengths.max(initial=0) > MAX_TOKENS:
        return None
    projected = projected.contiguous()
    context = projected.new_empty(len(projected), width)
    context[int(lengths.sum()) :] = 0
    run(
        projected.data_ptr(), context.data_ptr(), width, heads, starts.ctypes.data, lengths.ctypes.data, len(lengths),
        torch.get_num_threads(),
    )  # fmt: skip
    return context


def _kernel(projected: Tensor, head: int) -> Callable[..., None] | None:
    if projected.device.type != "cpu":
        return None
    if projected.dtype == torch.bfloat16 and head % 32 == 0 and head <= MAX_HEAD:
        compiled = kernels()
        return None if compiled is None else compiled.attend
    if projected.dtype == torch.float32 and head in (32, 64, 128):
        return float_attention()
    return None
