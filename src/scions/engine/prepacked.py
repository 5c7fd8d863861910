"""Products with frozen weights, laid out once for the processor's matrix unit, in both directions.

PyTorch passes a bf16 product to oneDNN, which rearranges the weight in every call; with a few hundred tokens that costs
as much as the product. oneDNN can keep the rearranged weight instead, and then adds the bias and applies GELU while
writing, which is the gain in float32. PyTorch offers this to its compiler alone, by operators with a leading
underscore, so their presence is checked, and plain products are used where they are missing.
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
        self._forward = self._backward = None
        if weight.dtype in (torch.bfloat16, torch.float32) and weight.device.type == "cpu" and can_prepack():
            self._forward = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    @classmethod
    def of(cls, *layers: nn.Linear, dtype: torch.dtype | None = None) -> PrepackedWeight:
        """Join linear layers with one input, their outputs side by side; ``dtype`` None: the weights' own."""
        weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
        return cls(*((t[0] if len(layers) == 1 else torch.cat(t)).to(dtype or t[0].dtype) for t in (weights, biases)))

    def product(self, x: torch.Tensor, gelu: bool = False) -> torch.Tensor:
        """Return ``x W^T + b``, ``[tokens, out]``, outside autograd, or with ``gelu`` the GELU of it."""
        if self._forward is None:
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if gelu else y
        after = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self._forward, self.bias, after[0], [], after[1])

    def gradient(self, outer: torch.Tensor) -> torch.Tensor:
        """Return the gradient of x, ``[tokens, in]``, given that of the product."""
        if self._forward is None:
            return outer @ self.weight
        if self._backward is None:
            self._backward = torch.ops.mkldnn._reorder_linear_weight(self.weight.t().contiguous(), None)
        return torch.ops.mkldnn._linear_pointwise(outer, self._backward, None, "none", [], "")

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x W^T + b`` in the weight's precision, differentiable with respect to x."""
        return _Product.apply(x.to(self.weight.dtype), self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: PrepackedWeight) -> torch.Tensor:
        ctx.weight = weight
        return weight.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> Any:
        return ctx.weight.gradient(outer.contiguous()), None


@lru_cache
def can_prepack() -> bool:
    """Return whether this PyTorch has oneDNN's products with prepacked weights, and they are right."""
    try:
        x, weight = torch.arange(24.0).view(3, 8).bfloat16(), torch.arange(40.0).view(5, 8).bfloat16()
        reordered = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        result = torch.ops.mkldnn._linear_pointwise(x, reordered, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return bool(torch.equal(result, F.linear(x, weight)))


def is_frozen(layer: nn.Module) -> bool:
    """Return whether ``layer`` is a plain linear layer with a bias, frozen, in the precision it computes in.

    A layer with hooks must be called itself: a parallel adapter reads the input of the feed-forward block by one.
    """
    if type(layer) is not nn.Linear or layer.bias is None or layer.weight.requires_grad:
        return False
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    return layer.weight.dtype == torch.bfloat16 or not torch.is_autocast_enabled(layer.weight.device.type)


class PrepackedLayers:
    """Cache of the `PrepackedWeight` of layers."""

    def __init__(self) -> None:
        self._cache: dict[tuple[int, ...], tuple[tuple[int, ...], PrepackedWeight]] = {}

    def of(self, *layers: nn.Linear) -> PrepackedWeight:
        """Return the weight of these layers, prepacked again where their weights have moved in memory."""
        key = tuple(id(layer) for layer in layers)
        addresses = tuple(layer.weight.data_ptr() for layer in layers)
        cached = self._cache.get(key)
        if cached is None or cached[0] != addresses:
            cached = self._cache[key] = (addresses, PrepackedWeight.of(*layers))
        return cached[1]
