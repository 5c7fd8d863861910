"""Products with prepacked weights equal plain ones."""

from __future__ import annotations

import pytest
import torch

from scions.engine import prepacked
from scions.engine.prepacked import PrepackedLayers, PrepackedWeight, can_prepack, is_frozen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [True, False])
def test_products_and_gradients_are_the_plain_ones(dtype, packed, monkeypatch):
    if packed and not can_prepack():
        pytest.skip("this PyTorch has no oneDNN product with a prepacked weight")
    monkeypatch.setattr(prepacked, "can_prepack", lambda: packed)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(24, 40).to(dtype).requires_grad_(False) for _ in range(3)]
    x = torch.randn(33, 24, dtype=dtype, requires_grad=True)
    outer = torch.randn(33, 120, dtype=dtype)
    results = []
    for product in (PrepackedWeight.of(*layers), lambda x: torch.cat([layer(x) for layer in layers], dim=-1)):
        y = product(x)
        y.backward(outer)
        results.append((y.detach().float(), x.grad.float()))
        x.grad = None
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for actual, expected in zip(*results, strict=True):
        assert torch.allclose(actual, expected, atol=tolerance, rtol=tolerance)


def test_a_layer_whose_weights_moved_is_prepacked_again():
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    layers = PrepackedLayers()
    first = layers.of(layer)
    assert layers.of(layer) is first
    layer.weight.data = layer.weight.data + 1
    assert layers.of(layer) is not first
    assert torch.equal(layers.of(layer)(torch.eye(4)), layer(torch.eye(4)))


def test_trained_layers_and_those_autocast_would_convert_are_not_frozen():
    layer = torch.nn.Linear(4, 4)
    assert not is_frozen(layer)
    layer.requires_grad_(False)
    assert is_frozen(layer)
    assert not is_frozen(torch.nn.Linear(4, 4, bias=False).requires_grad_(False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_frozen(layer)
        assert is_frozen(layer.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_comes_with_the_product(dtype):
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40).to(dtype).requires_grad_(False)
    x = torch.randn(33, 24, dtype=dtype)
    actual, expected = PrepackedWeight.of(layer).product(x, gelu=True), torch.nn.functional.gelu(layer(x))
    assert torch.allclose(actual.float(), expected.float(), atol=1e-6 if dtype == torch.float32 else 2e-2)
