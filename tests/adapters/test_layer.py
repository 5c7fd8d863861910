"""The bottleneck by hand, its first weights, and what several active adapters do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scions import BottleneckConfig
from scions.adapters.initial import UP_STD, down_std, site_generator, truncated_normal_
from scions.adapters.layer import AdaptedNorm, BottleneckLinear


def _tensors(model):
    return {name: p.detach().clone() for name, p in model[0].auto_model.named_parameters() if ".default." in name}


def test_it_computes_what_it_says():
    layer = BottleneckLinear(nn.Linear(5, 4))
    layer.update_layer("legal", BottleneckConfig(rank=2, activation="tanh"), 4, "site")
    layer._active_adapter = "legal"
    for part in (layer.bottleneck_down["legal"], layer.bottleneck_up["legal"]):
        nn.init.normal_(part.weight)
        nn.init.normal_(part.bias)
    x = torch.randn(3, 2, 5)
    y = layer.base_layer(x)
    down, up = layer.bottleneck_down["legal"], layer.bottleneck_up["legal"]
    inner = torch.tanh(y @ down.weight.T + down.bias)
    assert torch.allclose(layer(x), y + inner @ up.weight.T + up.bias, atol=1e-6)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), y)


def test_parallel_reads_the_input_of_its_source():
    source, sink = nn.Linear(3, 6), nn.Linear(6, 3)
    layer = BottleneckLinear(sink, source)
    layer.update_layer("legal", BottleneckConfig(rank=2, placement="parallel"), 3, "site")
    layer._active_adapter = "legal"
    nn.init.normal_(layer.bottleneck_up["legal"].weight)
    x = torch.randn(4, 3)
    hidden = source(x)
    down, up = layer.bottleneck_down["legal"], layer.bottleneck_up["legal"]
    expected = sink(hidden) + up(nn.functional.gelu(down(x)))
    assert torch.allclose(layer(hidden), expected, atol=1e-6)
    # Nothing of the pass is kept: a tensor with its graph would hold memory and forbid copying the model.
    copy.deepcopy(nn.ModuleList([source, layer]))


def test_a_parallel_model_can_be_copied_and_the_copy_reads_its_own_input(load):
    model = load("bert")
    model.add_adapter(BottleneckConfig(rank=2, placement="parallel"), "default")
    with torch.no_grad():
        for name, p in model[0].auto_model.named_parameters():
            if "bottleneck_up" in name:
                p.normal_()
    model.train()
    model(model.preprocess(["a court", "the law of the buyer"]))
    twin = copy.deepcopy(model).eval()
    model.eval()
    expected = model.encode(["the patient"])
    model.encode(["a pump of the engine"])
    assert (twin.encode(["the patient"]) == expected).all()


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_first_weights_depend_on_base_and_placement_alone(load, placement):
    tensors = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = load("bert")
        model.add_adapter(BottleneckConfig(rank=4, placement=placement), "default")
        tensors.append(_tensors(model))
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    matrices = [value for name, value in tensors[0].items() if name.endswith("down.default.weight")]
    assert not torch.equal(matrices[0], matrices[1])
    model = load("bert")
    model.add_adapter(BottleneckConfig(rank=4, placement=placement, init_seed=1), "default")
    other = [value for name, value in _tensors(model).items() if name.endswith("down.default.weight")]
    assert not torch.equal(matrices[0], other[0])


def test_drawing_first_weights_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    truncated_normal_(torch.empty(8, 8), 0.02, site_generator(0, "x", 8, 8))
    assert torch.equal(torch.rand(3), expected)


def test_first_weights_are_a_normal_cut_at_two_sigma():
    weight = torch.empty(500, 400)
    truncated_normal_(weight, 0.02, site_generator(0, "encoder.layer.0", 400, 500))
    assert float(weight.abs().max()) <= 2 * 0.02 * (1 + 1e-6)
    assert float(weight.abs().max()) > 1.95 * 0.02
    # The standard deviation of a standard normal cut at two sigma is 0.8796.
    assert float(weight.std()) == pytest.approx(0.8796 * 0.02, rel=0.01)
    assert float(weight.mean()) == pytest.approx(0, abs=0.02 / 100)


def test_the_layers_first_weights_have_the_documented_sizes(load):
    model = load("bert")
    model.add_adapter(BottleneckConfig(rank=16), "default")
    tensors = _tensors(model)
    down = torch.cat([v.flatten() for k, v in tensors.items() if k.endswith("bottleneck_down.default.weight")])
    up = torch.cat([v.flatten() for k, v in tensors.items() if k.endswith("bottleneck_up.default.weight")])
    assert float(down.std()) == pytest.approx(0.8796 * down_std(32), rel=0.05)
    assert float(up.std()) == pytest.approx(0.8796 * UP_STD, rel=0.05)
    assert all(not v.any() for k, v in tensors.items() if k.endswith("bias") and "norm" not in k)


def test_several_active_adapters_add_up_and_the_first_norm_counts():
    layer, norm = BottleneckLinear(nn.Linear(4, 4)), AdaptedNorm(nn.LayerNorm(4))
    for name in ("one", "two"):
        layer.update_layer(name, BottleneckConfig(rank=2), 4, name)
        nn.init.normal_(layer.bottleneck_up[name].weight)
        norm.update_layer(name)
        nn.init.normal_(norm.bottleneck_norm[name].weight)
    x = torch.randn(3, 4)
    y = layer.base_layer(x)
    layer.set_adapter(["one"])
    first = layer(x)
    layer.set_adapter(["one", "two"])
    gelu = nn.functional.gelu
    second = layer.bottleneck_up["two"](gelu(layer.bottleneck_down["two"](first)))
    assert torch.allclose(layer(x), first + second, atol=1e-6)
    assert not torch.allclose(first, y)
    norm.set_adapter(["two", "one"])
    assert torch.equal(norm(x), norm.bottleneck_norm["two"](x))


def test_the_norms_copy_does_not_follow_the_base():
    norm = AdaptedNorm(nn.LayerNorm(4))
    norm.update_layer("legal")
    norm.set_adapter("legal")
    with torch.no_grad():
        norm.bottleneck_norm["legal"].weight.fill_(2.0)
    assert torch.equal(norm.base_layer.weight, torch.ones(4))
