"""What cannot be mixed is refused, and the message says what differs and how."""

from __future__ import annotations

import pytest

from scions import BottleneckConfig
from scions.errors import AdapterError, UsageError
from scions.mixing.adapters import read_several
from scions.mixing.compatibility import check_comparable, check_mixable
from scions.store import Initialization


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (BottleneckConfig(rank=2), {"rank": 2}, "rank differs: 3 against 2"),
        (BottleneckConfig(rank=3, placement="pfeiffer"), {}, "method differs: houlsby against pfeiffer"),
        (BottleneckConfig(rank=3, layers=1), {}, "layers differs: None against 1"),
        (BottleneckConfig(rank=3, activation="relu"), {}, "activation differs: gelu against relu"),
        (BottleneckConfig(rank=3, train_norms=False), {}, "trained layer norms differs: True against False"),
        (None, {"initialisation": Initialization(seed=1, id="1")}, "initialisation differs"),
        (None, {"query_side": True, "format_version": 2}, "query side differs: False against True"),
        (None, {"pooling": "cls"}, "pooling differs: mean against cls"),
        (None, {"prompts": {"query": "q: "}}, "prompts differs"),
    ],
)
def test_what_differs_is_named(publish, config, changes, said):
    members = [publish("legal"), publish("medical", config=config, **changes)]
    with pytest.raises(AdapterError, match=rf"legal and medical cannot be (mixed|compared): their {said}"):
        check_mixable(members)


def test_another_base_is_named(publish, tiny_model):
    members = [publish("legal"), publish("medical", on=tiny_model("electra"))]
    with pytest.raises(AdapterError, match=r"their base differs: .*tiny-base \(weights \w{12}\) against .*electra"):
        check_comparable(members)


def test_a_tensor_of_another_shape_is_named(publish):
    from peft import LoraConfig

    wide = LoraConfig(r=2, target_modules=["query"], rank_pattern={"layer.1.attention.self.query": 4})
    members = [publish("legal", config=LoraConfig(r=2, target_modules=["query"])), publish("medical", config=wide)]
    with pytest.raises(AdapterError, match=r"layer\.1\..*lora_A.weight' differs: \[2, 32\] against \[4, 32\]"):
        check_comparable(members)


def test_the_order_of_target_modules_does_not_matter(publish):
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["query", "value"])
    members = [publish("legal", config=lora), publish("medical", config=lora)]
    members[1].config["target_modules"] = members[0].config["target_modules"][::-1]
    check_comparable(members)


def test_other_first_weights_can_be_compared(publish):
    members = [publish("legal"), publish("medical", initialisation=Initialization(seed=1, id="1"))]
    check_comparable(members)


def test_lora_is_refused_by_name(publish):
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["query"])
    members = [publish("legal", config=lora), publish("medical", config=lora)]
    with pytest.raises(AdapterError, match="legal: LoRA adapters cannot be mixed here"):
        check_mixable(members)


def test_members_are_read_once_each(three):
    with pytest.raises(UsageError, match="'legal' is named twice"):
        read_several(["legal", "medical", three[0].folder])
    with pytest.raises(UsageError, match="at least 2 adapters are needed, found 1"):
        read_several(["legal"])
    with pytest.raises(AdapterError, match="Did you mean 'legal'"):
        read_several(["legall", "medical"])


def test_a_member_is_called_as_its_folder(three, monkeypatch):
    monkeypatch.chdir(three[0].folder)
    assert [m.name for m in read_several([".", "../medical"])] == ["legal", "medical"]


@pytest.mark.parametrize(
    ("part", "shape", "said"),
    [
        ("bottleneck_down.weight", (5,), r"down.weight \[5\]"),
        ("bottleneck_down.weight", (3, 0), r"down.weight \[3, 0\]"),
        ("bottleneck_up.weight", (32, 2), r"up.weight \[32, 2\]"),
        ("bottleneck_down.bias", None, "down.bias missing"),
    ],
)
def test_tensors_that_are_no_bottleneck_are_refused(publish, part, shape, said):
    import torch
    from safetensors.torch import save_file

    member = publish("legal")
    tensors = dict(member.tensors)
    name = next(name for name in tensors if name.endswith(part))
    del tensors[name]
    if shape is not None:
        tensors[name] = torch.ones(shape)
    save_file(tensors, member.folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=rf"no bottleneck of rank 3: .*{said}"):
        read_several(["legal"], minimum=1)


@pytest.mark.parametrize("changes", [{"init_seed": "a"}, {"rank": None}])
def test_a_configuration_without_rank_or_seed_is_refused(publish, changes):
    import json

    member = publish("legal")
    (member.folder / "adapter_config.json").write_text(json.dumps(member.config | changes))
    with pytest.raises(AdapterError, match=r"rank and init_seed: expected whole numbers"):
        read_several(["legal"], minimum=1)


def test_a_whole_model_is_no_member(three):
    (three[0].folder / "modules.json").write_text("[]")
    with pytest.raises(AdapterError, match="holds all weights of a model"):
        read_several(["legal", "medical"])
