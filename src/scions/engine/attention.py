"""Self-attention within each of many packed texts.

Attention wants a rectangle. Texts are laid into blocks of about `BLOCK` tokens, several short ones a block, and a mask
keeps them from seeing each other: one block of 64 tokens costs far less than ten texts of six, whose tiny products
are all call overhead. Longer texts have blocks of their own with texts of like length.

The gradient is our own. PyTorch's fused kernel is fast forwards and, on a CPU in bf16, an order of magnitude slower
than plain products backwards (64 texts of 64 tokens, 12 heads, two cores: 66 ms against 8 ms for both directions).
So: the fused kernel forwards, which keeps no probabilities, and plain products over recomputed ones backwards. Where
our own compiled kernel covers it (see `scions.engine.kernels.native_attention`), forwards needs no blocks at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from scions.engine.kernels.native_attention import attend

BLOCK = 64
# Beyond a block's size texts go together while the shortest has at least this share of the longest's tokens.
LEAST_FILL = 0.6
LEAST_GROUP = 16
# A matrix product of a shape not seen before is compiled first, which costs more than running it: 22 ms for the 48
# products of a step of 300 tokens. So rows are filled up to one of 32 to 64 counts an octave, sizes to whole steps.
LEAST_STEP = 32
SIZE_STEP = 32
# Probabilities at a time in the backward pass, so that they stay near the caches.
PROBABILITIES = 2**21


@dataclass
class BlockGroup:
    """Blocks of one size.

    Attributes:
        blocks: how many.
        size: places of each.
        places: ``[blocks * size]`` the packed token at every place; a padded one repeats its block's first token.
        real: ``[tokens of the group]`` the places that hold a token.
        tokens: ``[tokens of the group]`` the packed tokens there.
        mask: ``[blocks, 1, size, size]`` True where a place may see another; None where all may.
    """

    blocks: int
    size: int
    places: torch.Tensor
    real: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor | None
    _added: torch.Tensor | None = None

    def added(self, dtype: torch.dtype, bias: torch.Tensor | None = None) -> torch.Tensor | None:
        """What is added to the scores: ``bias`` ``[1, heads, longest, longest]`` where there is one, and the mask."""
        if self.mask is None:
            return None if bias is None else bias[:, :, : self.size, : self.size].to(dtype)
        if bias is not None:
            return bias[:, :, : self.size, : self.size].to(dtype).masked_fill(~self.mask, float("-inf"))
        if self._added is None or self._added.dtype != dtype:
            self._added = torch.zeros_like(self.mask, dtype=dtype).masked_fill_(~self.mask, float("-inf"))
        return self._added


@dataclass
class PackedLayout:
    """How packed tokens map to texts and to attention's blocks.

    Attributes:
        lengths: ``[texts]`` tokens of each text, in the order the texts are packed.
        positions: ``[tokens]`` place of a token within its text.
        sizes: ``lengths`` as numpy.
        starts: ``[texts]`` first token of each text, numpy.
        rows: rows of the matrices that hold the tokens; those behind the tokens are filler, zero at first.
    """

    lengths: torch.Tensor
    positions: torch.Tensor
    sizes: np.ndarray
    starts: np.ndarray
    rows: int

    @classmethod
    def of(cls, lengths: torch.Tensor) -> PackedLayout:
        """Pack texts of ``lengths``, in any order."""
        # The compiled kernel reads them where they lie.
        sizes = np.ascontiguousarray(lengths.cpu().numpy(), dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        positions = np.arange(int(sizes.sum())) - np.repeat(starts, sizes)
        return cls(lengths, torch.from_numpy(positions).to(lengths.device), sizes, starts, _filled_up(len(positions)))

    @cached_property
    def groups(self) -> list[BlockGroup]:
        """Where attention in blocks sees the tokens."""
        device = self.lengths.device
        return [_group(blocks, size, self.sizes, self.starts, device) for size, blocks in _layout(self.sizes)]

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return len(self.positions)

    @property
    def widest(self) -> int:
        """Places of the largest block."""
        return max(group.size for group in self.groups)

    def attend(
        self, projected: torch.Tensor, heads: int, dropout: nn.Module, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Self-attention within each text.

        Args:
            projected: ``[rows, 3 * width]``: queries, keys, values.
            heads: number of heads.
            dropout: the layer's own for attention probabilities.
            bias: added to the scores, ``[1, heads, widest, widest]``, or None.

        Returns:
            ``[rows, width]``, zero behind the tokens.
        """
        dropped = float(dropout.p) if dropout.training else 0.0  # type: ignore[arg-type]
        if projected.device.type == "cpu" and dropped == 0 and (bias is None or not bias.requires_grad):
            return _Attention.apply(projected, self, heads, bias)
        context = projected.new_zeros(len(projected), projected.shape[1] // 3)
        for group in self.groups:
            query, key, value = _split(projected.index_select(0, group.places), group, heads)
            added = group.added(query.dtype, bias)
            result = F.scaled_dot_product_attention(query, key, value, attn_mask=added, dropout_p=dropped)
            context = context.index_copy(0, group.tokens, _joined(result).index_select(0, group.real))
        return context


def _filled_up(tokens: int) -> int:
    step = max(LEAST_STEP, 2 ** (tokens.bit_length() - 6))
    return -(-tokens // step) * step


def _layout(sizes: np.ndarray) -> list[tuple[int, list[list[int]]]]:
    """Groups of ``(size, blocks)``; a block is the numbers of the texts in it."""
    groups: list[tuple[int, list[list[int]]]] = []
    texts = left = 0
    for text in np.argsort(-sizes, kind="stable").tolist():
        length = int(sizes[text])
        size = groups[-1][0] if groups else 0
        if not groups or (size > BLOCK and texts >= LEAST_GROUP and length < LEAST_FILL * size):
            groups.append((BLOCK if length <= BLOCK else -(-length // SIZE_STEP) * SIZE_STEP, []))
            texts = left = 0
        if length > left:
            groups[-1][1].append([])
            left = groups[-1][0]
        groups[-1][1][-1].append(text)
        texts, left = texts + 1, left - length
    return groups


def _group(
    blocks: list[list[int]], size: int, sizes: np.ndarray, starts: np.ndarray, device: torch.device
) -> BlockGroup:
    flat = np.array([text for block in blocks for text in block])
    first = np.array([block[0] for block in blocks])
    block = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    lengths = sizes[flat]
    total = int(lengths.sum())
    tokens = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts[flat], lengths)
    filled = np.bincount(block, lengths, len(blocks)).astype(np.int64)
    real = (
        np.arange(total)
        - np.repeat(np.cumsum(filled) - filled, filled)
        + np.repeat(np.arange(len(blocks)) * size, filled)
    )
    places = np.repeat(starts[first], size)
    places[real] = tokens
    mask = None
    if total < len(places) or len(flat) > len(blocks):
        # A padded place sees its block's first text, so that no row of scores is empty; what it gives is dropped.
        owner = np.repeat(first, size)
        owner[real] = np.repeat(flat, lengths)
        key = np.full(len(places), -1)
        key[real] = owner[real]
        mask = torch.from_numpy(owner.reshape(-1, 1, size, 1) == key.reshape(-1, 1, 1, size)).to(device)
    on_device = [torch.from_numpy(array).to(device) for array in (places, real, tokens)]
    return BlockGroup(len(blocks), size, on_device[0], on_device[1], on_device[2], mask)


def _split(rows: torch.Tensor, group: BlockGroup, heads: int) -> torch.Tensor:
    """``[3, blocks, heads, size, width of a head]`` of ``[blocks * size, 3 * width]``."""
    return rows.view(group.blocks, group.size, 3, heads, -1).permute(2, 0, 3, 1, 4)


def _joined(context: torch.Tensor) -> torch.Tensor:
    """``[blocks * size, width]`` of ``[blocks, heads, size, width of a head]``."""
    return context.transpose(1, 2).reshape(context.shape[0] * context.shape[2], -1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, layout: PackedLayout, heads: int, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(projected)
        ctx.layout, ctx.heads, ctx.bias = layout, heads, bias
        native = attend(projected, heads, layout.starts, layout.sizes) if bias is None else None
        if native is not None:
            return native
        context = projected.new_empty(len(projected), projected.shape[1] // 3)
        context[layout.tokens :] = 0
        for group in layout.groups:
            query, key, value = _split(projected.index_select(0, group.places), group, heads)
            result = F.scaled_dot_product_attention(query, key, value, attn_mask=group.added(query.dtype, bias))
            context.index_copy_(0, group.tokens, _joined(result).index_select(0, group.real))
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (projected,) = ctx.saved_tensors
        result = torch.empty_like(projected)
        result[ctx.layout.tokens :] = 0
        for group in ctx.layout.groups:
            split = _split(projected.index_select(0, group.places), group, ctx.heads)
            # Nothing flows back from padded places.
            outer = gradient.new_zeros(len(group.places), gradient.shape[1])
            outer.index_copy_(0, group.real, gradient.index_select(0, group.tokens))
            outer = outer.view(group.blocks, group.size, ctx.heads, -1).transpose(1, 2)
            added = group.added(projected.dtype, ctx.bias)
            at_once = max(1, PROBABILITIES // (ctx.heads * group.size**2))
            parts = []
            for start in range(0, group.blocks, at_once):
                chunk = slice(start, start + at_once)
                some = added if added is None or len(added) == 1 else added[chunk]
                parts.append(_gradient(split[:, chunk], outer[chunk], some))
            whole = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            whole = whole.permute(1, 3, 0, 2, 4).reshape(len(group.places), -1)
            result.index_copy_(0, group.tokens, whole.index_select(0, group.real))
        return result, None, None, None


def _gradient(split: torch.Tensor, outer: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
    """Gradients of queries, keys and values ``[3, blocks, heads, size, width of a head]``."""
    _, blocks, heads, size, width = split.shape
    query, key, value = split.reshape(3, blocks * heads, size, width)
    outer = outer.reshape(blocks * heads, size, width)
    scale = width**-0.5
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale)
    if added is not None:
        scores = (scores.view(blocks, heads, size, size) + added).view(blocks * heads, size, size)
    probabilities = scores.softmax(-1)
    inner = torch._softmax_backward_data(torch.bmm(outer, value.transpose(1, 2)), probabilities, -1, scores.dtype)
    inner.mul_(scale)
    result = torch.empty_like(split, memory_format=torch.contiguous_format)
    flat = result.view(3, blocks * heads, size, width)
    torch.bmm(inner, key, out=flat[0])
    torch.bmm(inner.transpose(1, 2), query, out=flat[1])
    torch.bmm(probabilities.transpose(1, 2), outer, out=flat[2])
    return result
