"""Table of supported architectures: the names of a layer's modules in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Module paths of one architecture, relative to a layer.

    ``layer`` is the path of a layer in the model, with ``{n}`` for its number. `scions.engine` needs the fields from
    ``query`` on, and runs the architectures that have them. ``output_dropout`` follows attention's output projection.
    ``positions_after_padding``: position numbers start after that of the padding token. ``position_bias``: all layers
    add a shared bias to the attention scores.
    """

    layer: str
    attention: str
    feedforward: str
    attention_norm: str
    feedforward_norm: str
    feedforward_input: str
    query: str = ""
    key: str = ""
    value: str = ""
    activation: str = ""
    attention_dropout: str = ""
    output_dropout: str | None = None
    feedforward_dropout: str = ""
    positions_after_padding: bool = False
    position_bias: bool = False


_BERT = Architecture(
    layer="encoder.layer.{n}",
    attention="attention.output.dense",
    feedforward="output.dense",
    attention_norm="attention.output.LayerNorm",
    feedforward_norm="output.LayerNorm",
    feedforward_input="intermediate.dense",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    activation="intermediate.intermediate_act_fn",
    attention_dropout="attention.self.dropout",
    output_dropout="attention.output.dropout",
    feedforward_dropout="output.dropout",
)
_ROBERTA = replace(_BERT, positions_after_padding=True)
_LLAMA = Architecture(
    layer="layers.{n}",
    attention="self_attn.o_proj",
    feedforward="mlp.down_proj",
    attention_norm="input_layernorm",
    feedforward_norm="post_attention_layernorm",
    feedforward_input="mlp.gate_proj",
)
_GEMMA = replace(_LLAMA, attention_norm="post_attention_layernorm", feedforward_norm="post_feedforward_layernorm")

ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(("bert", "electra"), _BERT),
    **dict.fromkeys(("roberta", "xlm-roberta"), _ROBERTA),
    "camembert": replace(_ROBERTA, query=""),  # not tested in the engine
    "distilbert": Architecture(
        layer="transformer.layer.{n}",
        attention="attention.out_lin",
        feedforward="ffn.lin2",
        attention_norm="sa_layer_norm",
        feedforward_norm="output_layer_norm",
        feedforward_input="ffn.lin1",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        activation="ffn.activation",
        attention_dropout="attention.dropout",
        feedforward_dropout="ffn.dropout",
    ),
    "mpnet": Architecture(
        layer="encoder.layer.{n}",
        attention="attention.attn.o",
        feedforward="output.dense",
        attention_norm="attention.LayerNorm",
        feedforward_norm="output.LayerNorm",
        feedforward_input="intermediate.dense",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        activation="intermediate.intermediate_act_fn",
        attention_dropout="attention.attn.dropout",
        output_dropout="attention.dropout",
        feedforward_dropout="output.dropout",
        positions_after_padding=True,
        position_bias=True,
    ),
    "modernbert": Architecture(
        layer="layers.{n}",
        attention="attn.Wo",
        feedforward="mlp.Wo",
        attention_norm="attn_norm",
        feedforward_norm="mlp_norm",
        feedforward_input="mlp.Wi",
    ),
    **dict.fromkeys(("qwen3", "qwen2", "llama", "mistral"), _LLAMA),
    **dict.fromkeys(("gemma3_text", "gemma2"), _GEMMA),
}


def architecture_of(network: Any) -> Architecture | None:
    """Return the architecture of a transformers model, None where it is not in the table."""
    return ARCHITECTURES.get(str(getattr(getattr(network, "config", None), "model_type", None)))
