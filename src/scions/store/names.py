"""Check names of adapters: safe as a folder, a PEFT adapter and an API's `model`; file names in an adapter's folder."""

from __future__ import annotations

import re
import unicodedata

from scions.errors import AdapterError, UsageError

MAX_LENGTH = 64

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Not PEFT's name: its loader would find none of the names it looks for, and go on with fresh weights.
SPARSE_WEIGHTS_FILE = "adapter_model.sparse.safetensors"
MANIFEST_FILE = "scions.json"
MODULES_FILE = "modules.json"  # of sentence-transformers: in the folder of a whole model

BASE = "base"  # in place of an adapter's name: the base alone

# Words with another meaning where a name is expected (`adapter="auto"`, `adapter="all"`, JSON's null, ...); `default`
# is the name PEFT gives to an adapter without one.
RESERVED = frozenset({BASE, "auto", "auto-rows", "default", "none", "null", "all"})

# PEFT leaves other adapters' tensors out of a saved file by searching their keys for `.<name>.`. With an adapter
# `attention` loaded beside `legal`, every tensor of `legal` in a module `attention` is silently dropped from legal's
# file. So no adapter may be named like a part of a module path of a supported architecture, nor like one PEFT adds.
_PARTS = """
    attention output encoder dense intermediate embeddings layer query key value pooler layernorm self
    word_embeddings position_embeddings token_type_embeddings embeddings_project dropout intermediate_act_fn
    transformer q_lin k_lin v_lin out_lin sa_layer_norm ffn lin1 lin2 output_layer_norm activation
    attn q k v o relative_attention_bias
    layers wqkv wo wi mlp act norm attn_norm mlp_norm final_norm tok_embeddings rotary_emb
    embed_tokens self_attn q_proj k_proj v_proj o_proj q_norm k_norm gate_proj up_proj down_proj act_fn
    input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm
    bert roberta distilbert mpnet electra modernbert decoder head lm_head classifier linear
    model auto_model base_model base_layer modules_to_save original_module
    weight bias gamma beta down up adapter adapters parametrizations
"""
MODULE_PARTS = frozenset(_PARTS.split())
PEFT_PREFIXES = ("lora_", "ia3_", "bottleneck_")

WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
)

_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class NameRefused(AdapterError, UsageError):
    """A name that is not allowed or is taken already."""


def check_name(name: str) -> str:
    """Return `name` unchanged if it is allowed for an adapter.

    Allowed are 1 to 64 ASCII letters, digits, `-` and `_`, the first a letter or a digit, at least one not a digit.
    Reserved words, parts of module paths (see `MODULE_PARTS`) and Windows' device names are refused whatever their
    case.

    Raises:
        NameRefused: names the problem and suggests a valid name.
    """
    problem = _problem(name)
    if problem is None:
        return name
    raise NameRefused(f"adapter name {_shown(name)}: {problem}. Try {_suggest(name)!r}.")


def _problem(name: str) -> str | None:
    if not isinstance(name, str):
        return f"a name is a string, not {type(name).__name__}"
    if not name:
        return "it is empty"
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters, at most {MAX_LENGTH} are allowed"
    if "/" in name or "\\" in name or ".." in name:
        return "it would lead to another folder (slashes and '..' are not allowed)"
    if "." in name:
        return "it contains a dot, which PyTorch does not allow in a module's name"
    if ":" in name:
        return "it contains a colon, which is reserved in Windows' paths and model strings"
    if not _ALLOWED.fullmatch(name):
        if _ALLOWED.match(name) is None:
            return f"it starts with {name[0]!r}; the first character is a letter (a-z) or a digit"
        wrong = next(c for c in name if not _ALLOWED.fullmatch("a" + c))
        return f"it contains {wrong!r}; only letters (a-z), digits, '-' and '_' are allowed"
    folded = name.casefold()
    if folded in RESERVED:
        return "it is a reserved word"
    if name.isdigit():
        return "it is a bare number, which PEFT confuses with a layer's index when it saves"
    if folded in MODULE_PARTS or folded.startswith(PEFT_PREFIXES):
        return "it is part of the model's module paths, and PEFT would leave tensors out when it saves"
    if folded in WINDOWS_DEVICES:
        return "Windows reserves it for a device"
    return None


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 90 else text[:80] + "…'"


def _suggest(name: object) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() if isinstance(name, str) else ""
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_name).strip("-_")[:MAX_LENGTH].rstrip("-_")
    for candidate in (cleaned, f"{cleaned}-domain", f"my-{cleaned}"):
        if cleaned and _problem(candidate) is None:
            return candidate
    return "my-domain"
