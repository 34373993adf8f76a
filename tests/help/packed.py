"""A llama or Gemma model as llama.cpp stores it, written by its own package from weights that we
know."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
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


# Where Gemma's are called otherwise.
GEMMA = {
    **NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
# Types that the package reads and does not write: bytes of a block at which float16 scales stand.
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in llama.cpp's order: the halves of a head that are rotated together stand
    side by side."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def pack(weight: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """A weight as `kind`; of a type that the package does not write, some weight of that shape."""
    if kind.name not in SCALES:
        return quantize(weight, kind)
    values, size = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(weight.size)
    blocks = random.integers(0, 256, (weight.size // values, size), dtype=np.uint8)
    for at in SCALES[kind.name]:
        scales = random.uniform(1e-4, 1e-3, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks.reshape(len(weight), -1)


def write_gguf(
    path: Path,
    source: Path,
    kind: GGMLQuantizationType,
    outside: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> dict[str, np.ndarray]:
    """Write a llama or Gemma 3 directory as GGUF, its linears as `kind`, embedding and head as
    `outside`; give the weights of all of these as they come out of it, by name, in transformers'
    order of rows."""
    config = AutoConfig.from_pretrained(source)
    state = AutoModelForCausalLM.from_pretrained(source).float().state_dict()
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    is_gemma = config.model_type == "gemma3_text"
    writer = GGUFWriter(path, "gemma3" if is_gemma else "llama")
    write_settings(writer, config)
    write_tokenizer(writer, tokenizer["model"], "llama" if is_gemma else "gpt2")
    found = {}
    for name, values in state.items():
        weight = values.numpy()
        if weight.ndim == 1 and is_gemma:
            # Its norms multiply by 1 + weight.
            weight = weight + 1
        if ".layers." not in name:
            named = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
            stored, as_kind = named.get(name.removesuffix(".weight"), "output"), outside
            if config.tie_word_embeddings and stored == "output":
                continue
        else:
            block, _, module = name.removesuffix(".weight").partition(".layers.")[2].partition(".")
            stored, as_kind = f"blk.{block}.{(GEMMA if is_gemma else NAMES)[module]}", kind
        if weight.ndim == 1:
            writer.add_tensor(f"{stored}.weight", weight)
            continue
        packed = pack(weight, as_kind)
        found[name] = dequantize(packed, as_kind)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        role = stored.rpartition(".")[2]
        if role in heads and not is_gemma:
            packed = interleave(packed, heads[role])
        writer.add_tensor(f"{stored}.weight", packed, raw_dtype=as_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def write_settings(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.model_type == "gemma3_text":
        writer.add_key_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
    else:
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def write_tokenizer(writer: GGUFWriter, model: dict[str, Any], kind: str) -> None:
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    if kind == "llama":
        writer.add_token_scores([0.0] * len(tokens))
    # Of llama.cpp's types of tokens 3 is a control token, 1 a normal one.
    special = [token.startswith("<") and token.endswith(">") for token in tokens]
    writer.add_token_types([3 if each else 1 for each in special])
    merges = model["merges"]
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_eos_token_id(0)
