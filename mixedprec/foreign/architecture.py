"""Whether a candidate is of its reference's architecture, by what their config.json say."""

import math
from typing import Any

from transformers import PretrainedConfig

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.padding import count_padding

# Entries of config.json that decide no number of a forward without a cache.
WITHOUT_EFFECT = {
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "name_or_path",
    "pad_token_id",
    "pretraining_tp",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
# Of a setting, where it was stored in float32.
ROUNDING = 1e-6
FIRST = ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")


def agree(one: Any, other: Any) -> bool:
    """Whether two settings are the same; a GGUF file and what comes of it rounds them to
    float32."""
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=ROUNDING)
    return bool(one == other)


def check_architecture(reference: PretrainedConfig, candidate: PretrainedConfig) -> None:
    """Raise InputError, naming the first entry of config.json by which candidate and reference
    would compute different functions even with equal weights."""
    ours, theirs = reference.to_dict(), candidate.to_dict()
    # Tools leave notes of their own in config.json: what the architecture does not know is one.
    known = set(type(reference)().to_dict())
    entries = [*FIRST, *sorted(known - WITHOUT_EFFECT - set(FIRST))]
    for entry in entries:
        if entry.startswith("_") or "dropout" in entry:
            continue
        if entry == "vocab_size" and count_added(reference, candidate):
            continue
        if not agree(ours.get(entry), theirs.get(entry)):
            remedy = "compare a checkpoint with the model it was made from"
            if entry == "vocab_size":
                remedy += (
                    ", or give it that vocabulary first (transformers: "
                    f"resize_token_embeddings({reference.vocab_size}), then save_pretrained)"
                )
            raise InputError(
                f"the candidate's {entry} is {theirs.get(entry)}, "
                f"the reference's {ours.get(entry)}",
                remedy,
            )


def count_added(reference: PretrainedConfig, candidate: PretrainedConfig) -> int:
    """Tokens by which the candidate's vocabulary was rounded up."""
    return count_padding(reference.vocab_size, candidate.vocab_size)
