"""A frozen projection with bottleneck, residual and layer norm as one step of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from scions.adapters.layer import AdaptedNorm, BottleneckLinear
from scions.engine.prepacked import PrepackedLayers, PrepackedWeight, is_frozen


def fused_sublayer(
    frozen: PrepackedLayers,
    x: torch.Tensor,
    residual: torch.Tensor,
    dense: nn.Module,
    dropout: nn.Module | None,
    norm: nn.Module,
) -> torch.Tensor:
    """Return ``norm(dropout(dense(x)) + residual)``, ``[rows, width]``.

    If ``dense`` is a frozen projection with one bottleneck and dropout is off, all of it is one step of autograd in the
    projection's precision, which takes a third of the calls; otherwise the modules are called.

    Args:
        frozen: cache of prepacked weights.
        x: ``[rows, in]``.
        residual: ``[rows, width]``.
        dense: the output projection.
        dropout: the module after it, if any.
        norm: the layer norm.
    """
    adapter = only_bottleneck(dense, dropout, norm)
    if adapter is None:
        y = dense(x)
        return norm((y if dropout is None else dropout(y)) + residual)
    base = frozen.of(dense.base_layer)
    down, up = dense.bottleneck_down[adapter], dense.bottleneck_up[adapter]
    norm = norm.bottleneck_norm[adapter] if isinstance(norm, AdaptedNorm) else norm
    dtype = base.weight.dtype
    return _FusedSublayer.apply(
        x.to(dtype), residual.to(dtype), base, down.weight, down.bias, up.weight, up.bias,
        norm.weight, norm.bias, norm.eps,
    )  # fmt: skip


def only_bottleneck(dense: nn.Module, dropout: nn.Module | None, norm: nn.Module) -> str | None:
    """Return the name of the one active bottleneck, None where the modules must be called one by one."""
    if not isinstance(dense, BottleneckLinear) or dense.parallel or dense.disable_adapters:
        return None
    if dropout is not None and dropout.training and dropout.p > 0:  # type: ignore[operator]
        return None
    active = [name for name in dense.active_adapters if name in dense.bottleneck_down]
    if len(active) != 1 or not is_frozen(dense.base_layer):
        return None
    weight = dense.base_layer.weight
    if weight.device.type != "cpu" and weight.dtype != torch.float32:
        return None  # elsewhere the layer norm takes no bf16 input with float32 weights or gradients
    trained = dense.bottleneck_down[active[0]].weight.requires_grad
    if not trained or dense.bottleneck_activation[active[0]] != "gelu":
        return None
    if isinstance(norm, AdaptedNorm):
        if norm.disable_adapters or list(norm.active_adapters)[:1] != active or active[0] not in norm.bottleneck_norm:
            return None
        norm = norm.bottleneck_norm[active[0]]
    return active[0] if type(norm) is nn.LayerNorm else None


class _FusedSublayer(torch.autograd.Function):
    """``norm(y + up(gelu(down(y))) + residual)`` with ``y = x W^T + b``; no gradient for W and b."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, residual: torch.Tensor, base: PrepackedWeight,
        down: torch.Tensor, down_bias: torch.Tensor, up: torch.Tensor, up_bias: torch.Tensor,
        gamma: torch.Tensor, beta: torch.Tensor, eps: float,
    ) -> torch.Tensor:  # fmt: skip
        dtype = base.weight.dtype
        down, up = down.to(dtype), up.to(dtype)
        y = base.product(x)
        h = F.linear(y, down, down_bias.to(dtype))
        a = F.gelu(h)
        z = F.linear(a, up, up_bias.to(dtype)).add_(y).add_(residual)
        result, mean, rstd = torch.native_layer_norm(z, gamma.shape, gamma, beta, eps)
        ctx.base = base
        ctx.save_for_backward(down, up, gamma, beta, y, h, a, z, mean, rstd)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        down, up, gamma, beta, y, h, a, z, mean, rstd = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dz, dgamma, dbeta = torch.ops.aten.native_layer_norm_backward(
            gradient, z, gamma.shape, mean, rstd, gamma, beta, [True, needs[7], needs[8]]
        )
        dh = torch.ops.aten.gelu_backward(dz @ up, h)
        dx = ctx.base.gradient(torch.addmm(dz, dh, down)) if needs[0] else None
        return (
            dx, dz if needs[1] else None, None,
            (dh.t() @ y).float(), dh.sum(0, dtype=torch.float32),
            (dz.t() @ a).float(), dz.sum(0, dtype=torch.float32),
            dgamma, dbeta, None,
        )  # fmt: skip
