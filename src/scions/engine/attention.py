"""Self-attention within each of many packed texts.

Attention works on a rectangle. Texts are laid into blocks of about `BLOCK` tokens, several short ones per block, with a
mask between them: one block of 64 tokens costs far less than ten texts of six, whose tiny products are all call
overhead. Longer texts share a group of blocks with texts of similar length, one text per block.

The backward pass is our own. PyTorch's fused kernel is fast forward and, on a CPU in bf16, an order of magnitude slower
backward than plain products (64 texts of 64 tokens, 12 heads, two cores: 66 ms against 8 ms for both directions). So
the forward pass uses the fused kernel, which keeps no probabilities, and the backward pass recomputes them and uses
plain products. Where `scions.engine.kernels.native_attention` covers the batch, the forward pass needs no blocks.
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
# Texts longer than a block form one group while the shortest has at least this share of the longest's tokens.
MIN_FILL = 0.6
MIN_GROUP = 16
# A matrix product of a new shape is compiled first, which costs more than running it: 22 ms for the 48 products of a
# step of 300 tokens. So rows are filled up to one of 32 to 64 counts per octave, and sizes to multiples of a step.
MIN_STEP = 32
SIZE_STEP = 32
# Probabilities computed at a time in the backward pass, so that they stay near the caches.
PROBABILITIES = 2**21


@dataclass
class BlockGroup:
    """Blocks of one size.

    Attributes:
        blocks: number of blocks.
        size: places of a block.
        places: ``[blocks * size]``, the packed token at each place; padding repeats the block's first token.
        real: ``[tokens of the group]``, the places that hold a token.
        tokens: ``[tokens of the group]``, the packed tokens there.
        mask: ``[blocks, 1, size, size]``, True where a place may attend to another; None where all may.
    """

    blocks: int
    size: int
    places: torch.Tensor
    real: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor | None
    _added: torch.Tensor | None = None

    def added(self, dtype: torch.dtype, bias: torch.Tensor | None = None) -> torch.Tensor | None:
        """Return what is added to the scores: the mask, and ``bias`` ``[1, heads, longest, longest]`` if given."""
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
        lengths: ``[texts]``, tokens of each text, in packed order.
        positions: ``[tokens]``, position of a token within its text.
        sizes: ``lengths`` as numpy.
        starts: ``[texts]``, first token of each text, numpy.
        rows: rows of the matrices that hold the tokens; those after the tokens are filler, zero at first.
    """

    lengths: torch.Tensor
    positions: torch.Tensor
    sizes: np.ndarray
    starts: np.ndarray
    rows: int

    @classmethod
    def of(cls, lengths: torch.Tensor) -> PackedLayout:
        """Pack texts of these ``lengths``, in any order."""
        # The compiled kernel reads them from memory.
        sizes = np.ascontiguousarray(lengths.cpu().numpy(), dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        positions = np.arange(int(sizes.sum())) - np.repeat(starts, sizes)
        return cls(lengths, torch.from_numpy(positions).to(lengths.device), sizes, starts, _filled_up(len(positions)))

    @cached_property
    def groups(self) -> list[BlockGroup]:
        """The blocks in which attention sees the tokens."""
        device = self.lengths.device
        return [_group(blocks, size, self.sizes, self.starts, device) for size, blocks in _layout(self.sizes)]

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return len(self.positions)

    @property
    def widest(self) -> int:
        """Places of the largest block."""
        return max(group.size for group in self.groups)

    def filled(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` ``[tokens, width]`` with the filler rows after it, ``[rows, width]``."""
        return F.pad(x, (0, 0, 0, self.rows - self.tokens))

    def attend(
        self, projected: torch.Tensor, heads: int, dropout: nn.Module, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute self-attention within each text.

        Args:
            projected: ``[rows, 3 * width]``, queries, keys and values.
            heads: number of heads.
            dropout: the layer's dropout of attention probabilities.
            bias: ``[1, heads, widest, widest]``, added to the scores; or None.

        Returns:
            ``[rows, width]``, zero after the tokens.
        """
        rate = float(dropout.p) if dropout.training else 0.0  # type: ignore[arg-type]
        if projected.device.type == "cpu" and rate == 0 and (bias is None or not bias.requires_grad):
            return _Attention.apply(projected, self, heads, bias)
        return _attend_in_blocks(projected, self, heads, bias, rate)


def _filled_up(tokens: int) -> int:
    step = max(MIN_STEP, 2 ** (tokens.bit_length() - 6))
    return -(-tokens // step) * step


def _layout(sizes: np.ndarray) -> list[tuple[int, list[list[int]]]]:
    """Return groups as ``(size, blocks)``, where a block is the numbers of its texts."""
    groups: list[tuple[int, list[list[int]]]] = []
    texts = left = 0
    for text in np.argsort(-sizes, kind="stable").tolist():
        length = int(sizes[text])
        size = groups[-1][0] if groups else 0
        if not groups or (size > BLOCK and texts >= MIN_GROUP and length < MIN_FILL * size):
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
        # A padded place attends to its block's first text, so that no row of scores is empty; its result is dropped.
        owner = np.repeat(first, size)
        owner[real] = np.repeat(flat, lengths)
        key = np.full(len(places), -1)
        key[real] = owner[real]
        mask = torch.from_numpy(owner.reshape(-1, 1, size, 1) == key.reshape(-1, 1, 1, size)).to(device)
    on_device = [torch.from_numpy(array).to(device) for array in (places, real, tokens)]
    return BlockGroup(len(blocks), size, on_device[0], on_device[1], on_device[2], mask)


def _split(rows: torch.Tensor, group: BlockGroup, heads: int) -> torch.Tensor:
    """Reshape ``[blocks * size, 3 * width]`` to ``[3, blocks, heads, size, width of a head]``."""
    return rows.view(group.blocks, group.size, 3, heads, -1).permute(2, 0, 3, 1, 4)


def _attend_in_blocks(
    projected: torch.Tensor, layout: PackedLayout, heads: int, bias: torch.Tensor | None, dropout: float = 0.0
) -> torch.Tensor:
    context = projected.new_empty(len(projected), projected.shape[1] // 3)
    context[layout.tokens :] = 0
    for group in layout.groups:
        query, key, value = _split(projected.index_select(0, group.places), group, heads)
        added = group.added(query.dtype, bias)
        result = F.scaled_dot_product_attention(query, key, value, attn_mask=added, dropout_p=dropout)
        joined = result.transpose(1, 2).reshape(len(group.places), -1)
        context.index_copy_(0, group.tokens, joined.index_select(0, group.real))
    return context


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
        return _attend_in_blocks(projected, layout, heads, bias)

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
                added_here = added if added is None or len(added) == 1 else added[chunk]
                parts.append(_gradient(split[:, chunk], outer[chunk], added_here))
            whole = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            whole = whole.permute(1, 3, 0, 2, 4).reshape(len(group.places), -1)
            result.index_copy_(0, group.tokens, whole.index_select(0, group.real))
        return result, None, None, None


def _gradient(split: torch.Tensor, outer: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
    """Return the gradients of queries, keys and values, ``[3, blocks, heads, size, width of a head]``."""
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
