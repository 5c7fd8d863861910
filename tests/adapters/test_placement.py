"""Where adapters sit in each architecture, and which rank a share allows."""

from __future__ import annotations

import pytest
from torch import nn

from scions import BottleneckConfig
from scions.adapters.placement import count_layers, find_sites, rank_for_share
from scions.errors import AdapterError, UsageError

BERT = ("encoder.layer.{n}", "attention.output.dense", "output.dense", "intermediate.dense")
BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
EXPECTED = {
    "bert": (*BERT, BERT_NORMS),
    "roberta": (*BERT, BERT_NORMS),
    "electra": (*BERT, BERT_NORMS),
    "distilbert": (
        "transformer.layer.{n}",
        "attention.out_lin",
        "ffn.lin2",
        "ffn.lin1",
        ("sa_layer_norm", "output_layer_norm"),
    ),
    "mpnet": (
        "encoder.layer.{n}",
        "attention.attn.o",
        "output.dense",
        "intermediate.dense",
        ("attention.LayerNorm", "output.LayerNorm"),
    ),
    "modernbert": ("layers.{n}", "attn.Wo", "mlp.Wo", "mlp.Wi", ("attn_norm", "mlp_norm")),
    "qwen3": (
        "layers.{n}",
        "self_attn.o_proj",
        "mlp.down_proj",
        "mlp.gate_proj",
        ("input_layernorm", "post_attention_layernorm"),
    ),
}


def _network(load, kind):
    return load(kind)[0].auto_model


@pytest.mark.parametrize("kind", EXPECTED)
def test_sites_of_each_placement_are_exactly_these(load, kind):
    network = _network(load, kind)
    layer, attention, feedforward, inner, (first_norm, second_norm) = EXPECTED[kind]
    layers = [layer.format(n=n) for n in range(2)]
    houlsby = find_sites(network, BottleneckConfig())
    assert houlsby.bottlenecks == tuple(f"{name}.{part}" for name in layers for part in (attention, feedforward))
    norms = [f"{name}.{part}" for name in layers for part in (first_norm, second_norm)]
    if kind == "modernbert":  # whose first attention norm is the identity
        norms.remove("layers.0.attn_norm")
    assert houlsby.norms == tuple(norms)
    assert houlsby.layers == tuple(layers)
    pfeiffer = find_sites(network, BottleneckConfig(placement="pfeiffer"))
    assert pfeiffer.bottlenecks == tuple(f"{name}.{feedforward}" for name in layers)
    assert pfeiffer.norms == tuple(f"{name}.{second_norm}" for name in layers)
    parallel = find_sites(network, BottleneckConfig(placement="parallel"))
    assert parallel.bottlenecks == pfeiffer.bottlenecks
    assert parallel.inputs == {f"{name}.{feedforward}": f"{name}.{inner}" for name in layers}
    assert count_layers(network) == 2


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_what_is_wrapped_is_what_was_found_and_only_that_is_trained(load, kind, placement):
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = load(kind)
    config = BottleneckConfig(rank=3, placement=placement)
    sites = find_sites(model[0].auto_model, config)
    model.add_adapter(config, "legal")
    wrapped = {name for name, module in model[0].auto_model.named_modules() if isinstance(module, BaseTunerLayer)}
    assert wrapped == {*sites.bottlenecks, *sites.norms}
    trained = {name for name, p in model[0].auto_model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model[0].auto_model.named_parameters() if ".legal." in name}
    assert all(name.split(".bottleneck_")[0] in wrapped for name in trained)
    for name in sites.bottlenecks:
        assert {f"{name}.bottleneck_{side}.legal.weight" for side in ("down", "up")} <= trained
    for name in sites.norms:
        assert f"{name}.bottleneck_norm.legal.weight" in trained


def test_norms_can_be_left_alone(load):
    assert find_sites(_network(load, "bert"), BottleneckConfig(train_norms=False)).norms == ()


def test_sites_are_the_same_where_an_adapter_is_already(load):
    model = load("bert")
    before = find_sites(model[0].auto_model, BottleneckConfig())
    model.add_adapter(BottleneckConfig(rank=2), "legal")
    assert find_sites(model[0].auto_model, BottleneckConfig()) == before


def test_only_the_upper_layers(load):
    network = _network(load, "bert")
    sites = find_sites(network, BottleneckConfig(layers=1))
    assert sites.bottlenecks == ("encoder.layer.1.attention.output.dense", "encoder.layer.1.output.dense")
    assert sites.layers == ("encoder.layer.1",)
    with pytest.raises(AdapterError, match="`layers=3`, but the model has only 2 layers"):
        find_sites(network, BottleneckConfig(layers=3))


class _Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"mix": nn.Linear(4, 6)}) for _ in range(2))
        self.head = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)


def test_an_unknown_architecture_lists_its_linear_layers():
    with pytest.raises(AdapterError, match=r"linear layers found: blocks\.\*\.mix, head$"):
        find_sites(_Unknown(), BottleneckConfig())


def test_a_known_name_with_other_insides_says_so():
    model = _Unknown()
    model.config = type("Config", (), {"model_type": "bert"})()
    with pytest.raises(AdapterError, match=r"says it is 'bert', but no layer named like 'encoder\.layer\.\{n\}'"):
        find_sites(model, BottleneckConfig())


def test_targets_by_name_and_by_regex():
    model = _Unknown()
    named = find_sites(model, BottleneckConfig(target_modules=["head", "blocks.1.mix"]))
    assert named.bottlenecks == ("blocks.1.mix", "head")
    found = find_sites(model, BottleneckConfig(target_modules=r"blocks\.\d\.mix"))
    assert found.bottlenecks == ("blocks.0.mix", "blocks.1.mix")
    assert found.norms == ()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["head", "tail"], "no module is named tail"),
        ("mix", "no module is named mix"),
        (["norm"], "not a linear layer: norm"),
    ],
)
def test_targets_that_do_not_fit(targets, message):
    with pytest.raises(AdapterError, match=message + ".*linear layers found"):
        find_sites(_Unknown(), BottleneckConfig(target_modules=targets))


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3"])
def test_a_share_gives_the_largest_rank_that_stays_below(load, kind, placement, share):
    def trained(rank: int) -> float:
        model = load(kind)
        total = sum(p.numel() for p in model.parameters())
        model.add_adapter(BottleneckConfig(rank=rank, placement=placement), "default")
        return sum(p.numel() for p in model.parameters() if p.requires_grad) / total

    rank = rank_for_share(_network(load, kind), BottleneckConfig(placement=placement), share)
    assert trained(rank) <= share < trained(rank + 1)


def test_a_share_too_small_names_the_least(load):
    with pytest.raises(AdapterError, match=r"share of 0\.10% is too small here: rank 1 takes \d"):
        rank_for_share(_network(load, "bert"), BottleneckConfig(), 0.001)


def test_adapters_in_the_model_are_no_part_of_the_base(load):
    model = load("bert")
    bare = rank_for_share(model[0].auto_model, BottleneckConfig(), 0.1)
    model.add_adapter(BottleneckConfig(rank=20), "legal")
    assert rank_for_share(model[0].auto_model, BottleneckConfig(), 0.1) == bare


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placement": "everywhere"}, "houlsby, pfeiffer, parallel"),
        ({"activation": "exp"}, "gelu, relu, silu, tanh"),
        ({"rank": 0}, "at least 1, got 0"),
        ({"rank": 1.5}, r"got 1\.5"),
        ({"layers": 0}, "at least 1"),
        ({"placement": "parallel", "target_modules": "x"}, "needs a known architecture"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        BottleneckConfig(**settings)
