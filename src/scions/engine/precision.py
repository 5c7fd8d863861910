"""Which precision to compute in: bf16 where the processor has instructions for it, float32 elsewhere."""

from __future__ import annotations

import torch

from scions.errors import UsageError

_CHOICES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 products are native on ``device``: emulated ones are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        # Undocumented, but the one place where torch itself asks; absent on processors that are not x86.
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False


def compute_dtype(wanted: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """``wanted`` as a dtype; None: bf16 where `has_bf16`, else float32.

    Raises:
        UsageError: it is neither float32 nor bfloat16.
    """
    if wanted is None:
        return torch.bfloat16 if has_bf16(device) else torch.float32
    found = _CHOICES.get(str(wanted).removeprefix("torch."))
    if found is None:
        raise UsageError(
            f"dtype {wanted!r} is not supported; choose from {', '.join(_CHOICES)}, or None for the best here"
        )
    return found
