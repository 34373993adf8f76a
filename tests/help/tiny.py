"""Configurations of tiny models of every supported family, and a text to run them on."""

from typing import Any

from transformers import AutoConfig, PretrainedConfig

VOCABULARY = 384
TEXT = "\n\n".join(
    f"Line {i}: the {a} {b} of the {c} is {i * i % 97}, not {i * 7 % 89}."
    for i, (a, b, c) in enumerate(
        (a, b, c)
        for a in ("slow", "broad", "careful", "silent", "early", "plain")
        for b in ("reading", "measure", "search", "balance", "proof", "record")
        for c in ("block", "stream", "window", "token", "recipe", "server")
    )
)

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2}
FULL = {"num_key_value_heads": 4}
LOCAL_GLOBAL = ["sliding_attention", "full_attention"]
HEADS = {"head_dim": 32}
SIZES = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": FULL,
    "qwen2": FULL,
    "qwen3": {**GROUPED, **HEADS},
    "gemma": {**FULL, **HEADS},
    "gemma2": {**GROUPED, **HEADS},
    "phi3": FULL,
    "gpt_neox": {},
    "stablelm": FULL,
    "starcoder2": FULL,
    "cohere": FULL,
    "bloom": {"n_layer": 2, "n_head": 4},
    "gptj": {**SIZES, "n_inner": 256, "rotary_dim": 16},
    "gpt_bigcode": {**SIZES, "n_inner": 256},
    "opt": {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "minicpm3": {
        **FULL,
        "q_lora_rank": 64,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
    },
    "mpt": {"d_model": 128, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma3_text": {**GROUPED, **HEADS, "sliding_window": 16, "layer_types": LOCAL_GLOBAL},
    "olmo": FULL,
    "olmo2": FULL,
    "olmo3": {**GROUPED, "layer_types": LOCAL_GLOBAL, "sliding_window": 16},
    "exaone4": {**FULL, "layer_types": LOCAL_GLOBAL, "sliding_window": 16},
    "smollm3": {**FULL, "no_rope_layers": [1, 0]},
    "granite": {
        **FULL,
        "embedding_multiplier": 4.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.1,
        "logits_scaling": 3.0,
    },
    "seed_oss": {**GROUPED, **HEADS},
    "glm4": {**FULL, **HEADS},
    "cohere2": {**FULL, "layer_types": LOCAL_GLOBAL, "sliding_window": 16},
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "qwen3_moe": {**FULL, **HEADS, **MIXTURE, "moe_intermediate_size": 128},
    "olmoe": {**FULL, **MIXTURE},
}
# Those whose blocks stock autoawq runs on transformers 5.
STOCK = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "phi3",
    "gpt_neox",
    "stablelm",
    "starcoder2",
    "cohere",
)
MIXTURES = ("mixtral", "qwen3_moe", "olmoe")


def tiny_config(family: str, **changes: Any) -> PretrainedConfig:
    """A configuration of `family` with two blocks of 128 channels, or as changed."""
    return AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family], **changes})
