"""A llama model as llama.cpp stores it, written by its own package from weights that we know."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from transformers import AutoConfig, AutoModelForCausalLM

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in llama.cpp's order: the halves of a head that are rotated together stand
    side by side."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, source: Path, kind: GGMLQuantizationType) -> dict[str, np.ndarray]:
    """Write a llama directory as GGUF, its linears as `kind`; give the linears' weights as they
    come out of it, by name, in transformers' order of rows."""
    config = AutoConfig.from_pretrained(source)
    state = AutoModelForCausalLM.from_pretrained(source).float().state_dict()
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(path, "llama")
    _write_settings(writer, config)
    _write_tokenizer(writer, tokenizer["model"])
    found = {}
    for name, values in state.items():
        weight = values.numpy()
        if ".layers." not in name:
            outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
            stem = outside.get(name.removesuffix(".weight"), "output")
            writer.add_tensor(f"{stem}.weight", weight)
            continue
        block, _, module = name.removesuffix(".weight").partition(".layers.")[2].partition(".")
        stored = f"blk.{block}.{NAMES[module]}.weight"
        if weight.ndim == 1:
            writer.add_tensor(stored, weight)
            continue
        packed = quantize(weight, kind)
        found[name] = dequantize(packed, kind)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        if NAMES[module] in heads:
            packed = quantize(interleave(weight, heads[NAMES[module]]), kind)
        writer.add_tensor(stored, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def _write_settings(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: GGUFWriter, model: dict[str, Any]) -> None:
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    # Of llama.cpp's types of tokens 3 is a control token, 1 a normal one.
    special = [token.startswith("<") and token.endswith(">") for token in tokens]
    writer.add_token_types([3 if each else 1 for each in special])
    merges = model["merges"]
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_eos_token_id(0)
