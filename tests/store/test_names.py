from __future__ import annotations

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scions.errors import AdapterError, UsageError
from scions.store.names import MODULE_PARTS, check_name


@pytest.mark.parametrize("name", ["legal", "a", "Medical_2", "3gpp", "x" * 64, "attention-span", "en-GB"])
def test_good_names_pass_unchanged(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("x" * 65, "65 characters"),
        ("v1.2", "dot"),
        ("org:legal", "colon"),
        ("a/b", "another folder"),
        ("a\\b", "another folder"),
        ("..", "another folder"),
        ("-legal", "starts with '-'"),
        ("_x", "starts with '_'"),
        ("two words", "contains ' '"),
        ("legal\n", "contains '\\n'"),
        ("straße", "contains 'ß'"),
        ("١", "starts with"),
        ("auto", "reserved"),
        ("Auto-Rows", "reserved"),
        ("Default", "reserved"),
        ("NULL", "reserved"),
        ("attention", "module paths"),
        ("layernorm", "module paths"),
        ("LayerNorm", "module paths"),
        ("Wqkv", "module paths"),
        ("lora_A", "module paths"),
        ("11", "bare number"),
        ("nul", "Windows"),
        ("COM1", "Windows"),
    ],
)
def test_bad_names_are_refused_with_a_reason(name: str, reason: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(reason)):
        check_name(name)


def test_a_refused_name_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"Try 'my-domain'\."):
        check_name("法律")


def test_not_a_string() -> None:
    with pytest.raises(AdapterError, match="not int"):
        check_name(3)  # type: ignore[arg-type]


@given(st.text(max_size=80) | st.sampled_from(sorted(MODULE_PARTS)))
def test_every_refusal_suggests_a_name_that_passes(name: str) -> None:
    try:
        check_name(name)
    except AdapterError as error:
        suggestion = ast.literal_eval(str(error).rpartition("Try ")[2].removesuffix("."))
        assert check_name(suggestion) == suggestion


def test_module_parts_cover_a_real_models_paths() -> None:
    from transformers import BertConfig, BertModel

    tiny = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    model = BertModel(BertConfig(vocab_size=8, max_position_embeddings=8, **tiny))
    for path, _ in model.named_parameters():
        for part in path.split("."):
            with pytest.raises(AdapterError):
                check_name(part)
