"""A mixture of experts as llama.cpp stores it, written by its own package from known weights."""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize
from transformers import AutoConfig, AutoModelForCausalLM

from tests.help.packed import GEMMA, interleave, pack, write_settings, write_tokenizer

# What llama.cpp calls an architecture: Mixtral's is Llama's.
ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe"}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_mixture(
    path: Path, source: Path, kind: GGMLQuantizationType
) -> dict[str, dict[str, np.ndarray]]:
    """Write a mixture's directory as GGUF, linears and experts as `kind`, routers and the rest as
    they are. Gives what comes out of the stacked tensors, [experts, N, K], by block and role."""
    config = AutoConfig.from_pretrained(source)
    state = AutoModelForCausalLM.from_pretrained(source).float().state_dict()
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    is_llama = ARCHITECTURES[config.model_type] == "llama"
    writer = GGUFWriter(path, ARCHITECTURES[config.model_type])
    write_settings(writer, config)
    count = config.num_local_experts if is_llama else config.num_experts
    writer.add_expert_count(count)
    writer.add_expert_used_count(config.num_experts_per_tok)
    if not is_llama:
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    write_tokenizer(writer, tokenizer["model"], "gpt2")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, values in state.items():
        weight = values.numpy()
        if ".layers." not in name:
            writer.add_tensor(f"{OUTSIDE[name.removesuffix('.weight')]}.weight", weight)
            continue
        block, _, module = name.partition(".layers.")[2].removesuffix(".weight").partition(".")
        if ".experts." in name:
            gate_up = name.endswith("gate_up_proj")
            stacked = np.split(weight, 2, axis=1) if gate_up else [weight]
            for role, each in zip(("gate", "up") if gate_up else ("down",), stacked, strict=True):
                packed = np.stack([pack(np.ascontiguousarray(expert), kind) for expert in each])
                found.setdefault(block, {})[role] = dequantize(packed, kind)
                stored = f"blk.{block}.ffn_{role}_exps.weight"
                writer.add_tensor(stored, packed, raw_dtype=kind)
        elif module == "mlp.gate":
            writer.add_tensor(f"blk.{block}.ffn_gate_inp.weight", weight)
        elif weight.ndim == 1:
            role = "ffn_norm" if module == "post_attention_layernorm" else GEMMA[module]
            writer.add_tensor(f"blk.{block}.{role}.weight", weight)
        else:
            packed = pack(weight, kind)
            if is_llama and GEMMA[module] in heads:
                packed = interleave(packed, heads[GEMMA[module]])
            writer.add_tensor(f"blk.{block}.{GEMMA[module]}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found
