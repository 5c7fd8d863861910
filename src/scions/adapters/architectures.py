"""Where each architecture keeps the modules that adapters attach to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """Module paths of one kind of layer; ``{n}`` is the layer's number."""

    layer: str
    attention: str
    feedforward: str
    attention_norm: str
    feedforward_norm: str
    feedforward_input: str


_BERT = Architecture(
    layer="encoder.layer.{n}",
    attention="attention.output.dense",
    feedforward="output.dense",
    attention_norm="attention.output.LayerNorm",
    feedforward_norm="output.LayerNorm",
    feedforward_input="intermediate.dense",
)


_LLAMA = Architecture(
    layer="layers.{n}",
    attention="self_attn.o_proj",
    feedforward="mlp.down_proj",
    attention_norm="input_layernorm",
    feedforward_norm="post_attention_layernorm",
    feedforward_input="mlp.gate_proj",
)


_GEMMA = Architecture(
    layer="layers.{n}",
    attention="self_attn.o_proj",
    feedforward="mlp.down_proj",
    attention_norm="post_attention_layernorm",
    feedforward_norm="post_feedforward_layernorm",
    feedforward_input="mlp.gate_proj",
)


ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": Architecture(
        layer="transformer.layer.{n}",
        attention="attention.out_lin",
        feedforward="ffn.lin2",
        attention_norm="sa_layer_norm",
        feedforward_norm="output_layer_norm",
        feedforward_input="ffn.lin1",
    ),
    "mpnet": Architecture(
        layer="encoder.layer.{n}",
        attention="attention.attn.o",
        feedforward="output.dense",
        attention_norm="attention.LayerNorm",
        feedforward_norm="output.LayerNorm",
        feedforward_input="intermediate.dense",
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
