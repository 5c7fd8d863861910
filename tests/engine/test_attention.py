"""Attention in blocks: every token has one place, and texts do not see each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from scions.engine import attention
from scions.engine.attention import BLOCK, MIN_STEP, PackedLayout
from scions.engine.kernels.build import float_attention, kernels
from scions.engine.kernels.native_attention import attend

LONG = [300, 12, 290, 3, 70, 1, *[100] * 18, 64, 65]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=60))
def test_every_token_has_one_place_and_sees_its_text_alone(lengths):
    layout = PackedLayout.of(torch.tensor(lengths))
    text = np.repeat(np.arange(len(lengths)), lengths)
    assert layout.positions.tolist() == [i for length in lengths for i in range(length)]
    assert sorted(torch.cat([group.tokens for group in layout.groups]).tolist()) == list(range(sum(lengths)))
    assert layout.tokens == sum(lengths) <= layout.rows < layout.tokens + max(MIN_STEP, layout.tokens / 16)
    for group in layout.groups:
        assert torch.equal(group.places[group.real], group.tokens)
        assert len(group.places) == group.blocks * group.size
        of_place = np.full(len(group.places), -1)
        of_place[group.real] = text[group.tokens]
        sees = np.ones((group.blocks, group.size, group.size), bool) if group.mask is None else group.mask[:, 0].numpy()
        of_place = of_place.reshape(group.blocks, group.size)
        for block in range(group.blocks):
            assert sees[block].any(axis=1).all()
            for place in np.flatnonzero(of_place[block] >= 0):
                assert (sees[block, place] == (of_place[block] == of_place[block, place])).all()


def test_short_texts_share_blocks_and_long_ones_are_not_padded_to_the_longest():
    layout = PackedLayout.of(torch.tensor([6] * 100))
    assert [(group.blocks, group.size) for group in layout.groups] == [(10, BLOCK)]
    sizes = [group.size for group in PackedLayout.of(torch.tensor([500] * 20 + [100] * 20)).groups]
    assert sizes == [512, 128]


@pytest.mark.parametrize("lengths", [LONG, [5] * 30, [128, 128]])
@pytest.mark.parametrize("probabilities", [2**21, 2**12])
def test_results_and_gradients_are_those_of_plain_attention(lengths, probabilities, monkeypatch):
    monkeypatch.setattr(attention, "PROBABILITIES", probabilities)
    heads, width = 2, 8
    layout = PackedLayout.of(torch.tensor(lengths))
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(layout.rows, 3 * width, generator=generator, requires_grad=True)
    outer = torch.randn(layout.tokens, width, generator=generator)
    actual = layout.attend(projected, heads, torch.nn.Dropout(0.0))
    (actual[: layout.tokens] * outer).sum().backward()
    gradient, projected.grad = projected.grad, None
    expected = torch.cat([_plain(part, heads) for part in projected[: layout.tokens].split(lengths)])
    (expected * outer).sum().backward()
    assert torch.allclose(actual[: layout.tokens], expected, atol=1e-5)
    assert not actual[layout.tokens :].any()
    assert torch.allclose(gradient, projected.grad, atol=1e-5)


KERNELS = {torch.bfloat16: (kernels, 2e-2), torch.float32: (float_attention, 5e-5)}


@pytest.mark.parametrize("dtype", KERNELS)
@pytest.mark.parametrize(("heads", "head"), [(2, 32), (3, 64), (1, 128)])
@pytest.mark.parametrize("lengths", [[1], [16, 32, 33], [512, 5, 100, *[7] * 40]])
def test_the_compiled_kernel_gives_what_plain_attention_gives(lengths, heads, head, dtype):
    kernel, tolerance = KERNELS[dtype]
    if kernel() is None:
        pytest.skip("no compiled kernel on this machine")
    layout = PackedLayout.of(torch.tensor(lengths))
    projected = 3 * torch.randn(layout.rows, 3 * heads * head, generator=torch.Generator().manual_seed(0)).to(dtype)
    actual = attend(projected, heads, layout.starts, layout.sizes)
    expected = torch.cat([_plain(part, heads) for part in projected[: layout.tokens].float().split(lengths)])
    assert torch.allclose(actual[: layout.tokens].float(), expected, atol=3 * tolerance)
    assert not actual[layout.tokens :].any()
    alone = attend(projected[: lengths[0]].contiguous(), heads, layout.starts[:1], layout.sizes[:1])
    assert torch.equal(alone, actual[: lengths[0]])


def test_the_compiled_kernel_reads_what_lies_otherwise_in_memory():
    if kernels() is None:
        pytest.skip("no compiled kernel on this machine")
    lengths = torch.tensor([3, 9, 5, 9])[::2].int()
    layout = PackedLayout.of(lengths)
    projected = torch.randn(192, layout.rows, generator=torch.Generator().manual_seed(0)).bfloat16().t()
    actual = attend(projected, 2, layout.starts, layout.sizes)
    expected = torch.cat([_plain(part.contiguous(), 2) for part in projected[: layout.tokens].float().split([3, 5])])
    assert torch.allclose(actual[: layout.tokens].float(), expected, atol=2e-2)


@pytest.mark.parametrize(
    ("dtype", "length", "head"),
    [("float64", 5, 32), ("bfloat16", 513, 32), ("bfloat16", 5, 16), ("float32", 513, 32), ("float32", 5, 96)],
)
def test_the_compiled_kernel_leaves_what_it_does_not_cover(dtype, length, head):
    projected = torch.zeros(length, 3 * head, dtype=getattr(torch, dtype))
    assert attend(projected, 1, np.array([0]), np.array([length])) is None


def _plain(part: torch.Tensor, heads: int) -> torch.Tensor:
    query, key, value = part.view(len(part), 3, heads, -1).permute(1, 2, 0, 3)
    return F.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(len(part), -1)
