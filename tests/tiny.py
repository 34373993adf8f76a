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
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": FULL,
    "qwen2": FULL,
    "qwen3": {**GROUPED, "head_dim": 32},
    "gemma": {**FULL, "head_dim": 32},
    "gemma2": {**GROUPED, "head_dim": 32},
    "phi3": FULL,
    "gpt_neox": {},
    "stablelm": FULL,
    "starcoder2": FULL,
    "cohere": FULL,
}


def tiny_config(family: str, **changes: Any) -> PretrainedConfig:
    """A configuration of `family` with two blocks of 128 channels, or as changed."""
    return AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family], **changes})
