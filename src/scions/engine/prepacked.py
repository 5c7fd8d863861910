"""Products with weights that do not change: laid out once for the processor's matrix unit, in both directions.

PyTorch hands a bf16 product to oneDNN, which rearranges the weight in every call; with a few hundred tokens that costs
as much as the product. oneDNN can keep the rearranged weight instead, and then adds the bias and applies GELU as it
writes, which is what float32 gains by it. PyTorch offers this to its compiler alone, by
operators with a leading underscore, so their presence is checked, and plain products stand in where they are missing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class PrepackedWeight:
    """A frozen weight ``[out, in]`` and its bias ``[out]``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight, bias
        self._forwards = self._backwards = None
        if weight.dtype in (torch.bfloat16, torch.float32) and weight.device.type == "cpu" and can_lay_out():
            self._forwards = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    @classmethod
    def of(cls, *layers: nn.Linear) -> PrepackedWeight:
        """Linear layers with one input: their outputs stand side by side."""
        weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
        return cls(*(kept[0] if len(layers) == 1 else torch.cat(kept) for kept in (weights, biases)))

    def product(self, x: torch.Tensor, gelu: bool = False) -> torch.Tensor:
        """``x W^T + b``, ``[tokens, out]``, outside autograd; ``gelu``: of that."""
        if self._forwards is None:
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if gelu else y
        after = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self._forwards, self.bias, after[0], [], after[1])

    def gradient(self, outer: torch.Tensor) -> torch.Tensor:
        """The gradient of x, ``[tokens, in]``, from that of the product."""
        if self._forwards is None:
            return outer @ self.weight
        if self._backwards is None:
            self._backwards = torch.ops.mkldnn._reorder_linear_weight(self.weight.t().contiguous(), None)
        return torch.ops.mkldnn._linear_pointwise(outer, self._backwards, None, "none", [], "")

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``x W^T + b`` in the weight's precision, differentiable with respect to x."""
        return _Product.apply(x.to(self.weight.dtype), self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, frozen: PrepackedWeight) -> torch.Tensor:
        ctx.frozen = frozen
        return frozen.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> Any:
        return ctx.frozen.gradient(outer.contiguous()), None


@lru_cache
def can_lay_out() -> bool:
    """Whether this PyTorch has oneDNN's products with weights laid out beforehand, and they are right."""
    try:
        x, weight = torch.arange(24.0).view(3, 8).bfloat16(), torch.arange(40.0).view(5, 8).bfloat16()
        kept = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        found = torch.ops.mkldnn._linear_pointwise(x, kept, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return bool(torch.equal(found, F.linear(x, weight)))


def is_frozen(layer: nn.Module) -> bool:
    """Whether `layer` is a plain linear layer with a bias, trained by nothing and in the precision it computes in.

    One with hooks must be called itself: an adapter beside the block reads its input so.
    """
    if type(layer) is not nn.Linear or layer.bias is None or layer.weight.requires_grad:
        return False
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    return layer.weight.dtype == torch.bfloat16 or not torch.is_autocast_enabled(layer.weight.device.type)


class PrepackedLayers:
    """`PrepackedWeight` of the layers met so far."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], tuple[tuple[int, ...], PrepackedWeight]] = {}

    def of(self, *layers: nn.Linear) -> PrepackedWeight:
        """What is kept for these layers, made anew where their weights lie elsewhere now."""
        key = tuple(id(layer) for layer in layers)
        where = tuple(layer.weight.data_ptr() for layer in layers)
        found = self._kept.get(key)
        if found is None or found[0] != where:
            found = self._kept[key] = (where, PrepackedWeight.of(*layers))
        return found[1]
