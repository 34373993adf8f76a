"""Why a checkpoint lacks a tensor that its config.json implies, and what mends it.

A file that was cut off is known by its header, and downloading it again mends it. The errors here
are for checkpoints that are whole but were saved in another way than their reader needs.
"""

import shlex
from collections.abc import Collection
from pathlib import Path

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import Family
from awqscope.mixedprec.models.catalogue import HEADS

# What other libraries put into the names of a model that they wrap, and which they are.
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "_forward_module.": "DeepSpeed",
    "base_model.model.": "peft",
    "module.": "DistributedDataParallel",
}
# What peft adds to the names of a model whose adapter is not merged.
UNMERGED = (".lora_", ".base_layer.", ".modules_to_save.")
WRONG_CONFIG = (
    "use the config.json that came with these weights, or a checkpoint that was saved whole"
)
PACKED = (".qweight", ".weight_packed", ".weight_scale")


def explain_lacking(
    path: Path, name: str, stored: Collection[str], family: Family, tied: bool
) -> InputError:
    """The error for a checkpoint in `path` without the tensor `name`. stored: the names that it
    has. tied: whether its head is its embedding."""
    embedding = f"{family.embedding}.weight"
    if any(mark in other for other in stored for mark in UNMERGED):
        return InputError(
            f"{path} holds a model with an adapter of peft that is not merged into it",
            "merge it first (peft: merge_and_unload, then save_pretrained)",
        )
    found = _find_prefix(name, stored)
    if found:
        return _explain_prefix(path, found)
    linear = name.removesuffix(".weight")
    if any(linear + mark in stored for mark in PACKED):
        return InputError(
            f"{path} packs {linear} in a way that its config.json does not name",
            "restore the quantization_config that it was saved with",
        )
    has_head = any(head in stored for head in HEADS)
    if not tied and (name in HEADS or (name == embedding and has_head)):
        other = "embedding" if name in HEADS else "head"
        return InputError(
            f"{path} has no tensor {name}, and by its config.json the head is not the embedding "
            "(tie_word_embeddings is false)",
            f'if its {other} is meant to serve as both, write "tie_word_embeddings": true into '
            "config.json; if not, give a checkpoint that was saved with both",
        )
    return InputError(f"{path} has no tensor {name}", WRONG_CONFIG)


def _find_prefix(name: str, stored: Collection[str]) -> str:
    """The text by which the stored name of the tensor `name` is too long; empty where no stored
    name is `name` with such an addition. Checkpoints may leave out the first part of a name: see
    `name_fully`."""
    wanted = {name, name.partition(".")[2]}
    for other in stored:
        for mark in WRAPPERS:
            if mark in other and other.replace(mark, "") in wanted:
                return mark
    ends = (other.removesuffix(name) for other in stored if other.endswith("." + name))
    return next(ends, "")


def _explain_prefix(path: Path, prefix: str) -> InputError:
    wrapper = f", put there by {WRAPPERS[prefix]}" if prefix in WRAPPERS else ""
    return InputError(
        f"the names of the tensors in {path} have {prefix!r} in them{wrapper}, under which "
        "transformers finds none of them",
        f"take it off: {write_renaming(path, prefix)}",
    )


def write_renaming(path: Path, prefix: str) -> str:
    """A command that takes a prefix off the names of all tensors of a checkpoint, in place."""
    program = (
        "import sys, pathlib, safetensors.torch as s; "
        "[s.save_file({n.replace(sys.argv[2], str()): t for n, t in s.load_file(f).items()}, f, "
        "dict(format='pt')) for f in pathlib.Path(sys.argv[1]).glob('*.safetensors')]"
    )
    return f'python -c "{program}" {shlex.quote(str(path))} {shlex.quote(prefix)}'
