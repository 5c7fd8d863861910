"""Computing precision: bf16 where the processor has instructions for it, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from scions.errors import UsageError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def has_bf16(device: torch.device) -> bool:
    """Return whether bf16 products are native on ``device``; emulated ones are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        # Private, but the check that torch itself uses; missing on processors that are not x86.
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False


def compute_dtype(wanted: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """Return ``wanted`` as a dtype; for None bf16 where `has_bf16`, else float32.

    Raises:
        UsageError: ``wanted`` is neither float32 nor bfloat16.
    """
    if wanted is None:
        return torch.bfloat16 if has_bf16(device) else torch.float32
    dtype = _DTYPES.get(str(wanted).removeprefix("torch."))
    if dtype is None:
        raise UsageError(
            f"dtype {wanted!r} is not supported; choose from {', '.join(_DTYPES)}, or None for the best here"
        )
    return dtype


def autocast(device: torch.device, enabled: bool = True) -> torch.autocast:
    """Return a context with bf16 autocast on ``device`` where that is native and ``enabled``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and has_bf16(device))


@contextmanager
def frozen_in_bf16(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Hold the weights of frozen linear layers in bf16; autocast would convert them again in every pass.

    On exit the float32 weights are restored bit for bit.
    """
    originals: list[tuple[nn.Parameter, torch.Tensor]] = []
    if enabled:
        for module in model.modules():
            if isinstance(module, nn.Linear) and not any(p.requires_grad for p in module.parameters(recurse=False)):
                originals += [(p, p.data) for p in module.parameters(recurse=False)]
    for parameter, original in originals:
        parameter.data = original.to(torch.bfloat16)
    try:
        yield
    finally:
        for parameter, original in originals:
            parameter.data = original


@contextmanager
def without_dropout(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Switch dropout off in training mode.

    Attention with dropout has no fused kernel on a CPU: on long texts the same steps took more than twice as long
    with it. Whether adapters would score better with dropout has not been measured.
    """
    rates = [(m, m.p) for m in model.modules() if isinstance(m, nn.Dropout)] if enabled else []
    for module, _ in rates:
        module.p = 0.0
    try:
        yield
    finally:
        for module, p in rates:
            module.p = p
