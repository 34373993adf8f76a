"""What a GGUF file says of itself that the model made from it does not: how each tensor was stored,
which entries of a configuration it states, and what transformers leaves out of it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
    load_gguf_checkpoint,
)

# Experts of a block are stacked in three tensors.
EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(gate|up|down)_exps\.weight")
# Factors by which llama.cpp divides the frequencies of rotary embeddings.
FREQUENCIES = re.compile(r"(?:blk\.\d+\.)?rope_f\w+\.weight")
SCALING = ".rope.scaling.type"


@dataclass(frozen=True)
class Contents:
    """What a GGUF file holds. tensors: type and bytes of each, by its name there. scaled: what
    scales rotary embeddings; transformers reads none of it."""

    tensors: Mapping[str, tuple[str, int]]
    scaled: tuple[str, ...]


def read_contents(path: Path) -> Contents:
    """What a GGUF file holds, from its headers."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    factors = [tensor for tensor in reader.tensors if FREQUENCIES.fullmatch(tensor.name)]
    scaled = [tensor.name for tensor in factors if (tensor.data != 1).any()]
    for name, field in reader.fields.items():
        if name.endswith(SCALING) and field.contents() != "none":
            scaled.append(f"{name} = {field.contents()}")
    held = {t.name: (t.tensor_type.name, int(t.n_bytes)) for t in reader.tensors}
    return Contents(held, tuple(scaled))


def read_stated(path: Path) -> dict[str, Any]:
    """The entries of a configuration that a GGUF file states, by transformers' names."""
    stated = load_gguf_checkpoint(path)["config"]
    return {name: value for name, value in stated.items() if isinstance(value, str | int | float)}


def name_tensors(model: Any, tensors: Iterable[str]) -> dict[str, str]:
    """What transformers calls the tensors of a GGUF file, by their names there; without those that
    it does not read. model: as transformers reads it. A block's experts are named alike in every
    family: `….experts.gate`, `.up` and `.down`."""
    architecture = model.config.model_type.replace("_moe", "moe")
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=model.config.to_dict())
    known: Mapping[str, str] = get_gguf_hf_weights_map(model, processor)
    names = {}
    for name in tensors:
        stacked = EXPERTS.fullmatch(name)
        found = known.get(name) or known.get(name.removesuffix(".weight"))
        if found is None:
            continue
        head, experts, _ = found.partition(".experts")
        names[name] = f"{head}{experts}.{stacked[2]}" if stacked else found
    return names
