"""What cannot be mixed is refused, and the message says what differs and how."""

from __future__ import annotations

import pytest

from scions import BottleneckConfig
from scions.errors import AdapterError, UsageError
from scions.mixing.members import read_members
from scions.mixing.mixable import check_comparable, check_mixable
from scions.store import Initialisation


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (BottleneckConfig(rank=2), {"rank": 2}, "rank differs: 3 against 2"),
        (BottleneckConfig(rank=3, placement="pfeiffer"), {}, "method differs: houlsby against pfeiffer"),
        (BottleneckConfig(rank=3, layers=1), {}, "layers differs: None against 1"),
        (BottleneckConfig(rank=3, activation="relu"), {}, "activation differs: gelu against relu"),
        (BottleneckConfig(rank=3, train_norms=False), {}, "trained layer norms differs: True against False"),
        (None, {"initialisation": Initialisation(seed=1, id="1")}, "initialisation differs"),
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


def test_other_first_weights_can_be_compared(publish):
    members = [publish("legal"), publish("medical", initialisation=Initialisation(seed=1, id="1"))]
    check_comparable(members)


def test_lora_is_refused_by_name(publish):
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["query"])
    members = [publish("legal", config=lora), publish("medical", config=lora)]
    with pytest.raises(AdapterError, match="legal: LoRA adapters cannot be mixed here"):
        check_mixable(members)


def test_members_are_read_once_each(three):
    with pytest.raises(UsageError, match="'legal' is named twice"):
        read_members(["legal", "medical", three[0].folder])
    with pytest.raises(UsageError, match="at least 2 adapters are needed, found 1"):
        read_members(["legal"])
    with pytest.raises(AdapterError, match="Did you mean 'legal'"):
        read_members(["legall", "medical"])


def test_a_whole_model_is_no_member(three):
    (three[0].folder / "modules.json").write_text("[]")
    with pytest.raises(AdapterError, match="holds all weights of a model"):
        read_members(["legal", "medical"])
