"""bf16 where the processor has instructions for it, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from scions.engine.precision import has_bf16


@contextmanager
def autocast(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """bf16 autocast on ``device`` where that is native and ``enabled``."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and has_bf16(device)):
        yield


@contextmanager
def frozen_in_bf16(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Keep the weights of frozen linear layers in bf16 meanwhile: autocast would convert them anew in every pass.

    The float32 weights come back bit for bit.
    """
    kept: list[tuple[nn.Parameter, torch.Tensor]] = []
    if enabled:
        for module in model.modules():
            if isinstance(module, nn.Linear) and not any(p.requires_grad for p in module.parameters(recurse=False)):
                kept += [(p, p.data) for p in module.parameters(recurse=False)]
    for parameter, original in kept:
        parameter.data = original.to(torch.bfloat16)
    try:
        yield
    finally:
        for parameter, original in kept:
            parameter.data = original


@contextmanager
def without_dropout(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Switch dropout off in training mode.

    Attention with dropout has no fused kernel on a CPU: on long texts the same steps took more than twice as long
    with it. Whether adapters would score better with dropout has not been measured.
    """
    kept = [(m, m.p) for m in model.modules() if isinstance(m, nn.Dropout)] if enabled else []
    for module, _ in kept:
        module.p = 0.0
    try:
        yield
    finally:
        for module, p in kept:
            module.p = p
