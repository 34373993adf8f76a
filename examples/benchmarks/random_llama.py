"""A random llama of any shape, for measurements that need no trained one."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig


def save_random_llama(
    folder: Path,
    *,
    hidden: int,
    intermediate: int,
    blocks: int,
    heads: int,
    key_value_heads: int,
    vocabulary: int = 4096,
    positions: int = 512,
    spread: float = 3.0,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Save one in `dtype`, the same for the same shape. spread: what its matrices are multiplied
    by; with that of a fresh model, quantizing would change next to nothing."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= spread
    model.save_pretrained(folder)
