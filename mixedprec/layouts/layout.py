"""What a layout is: how a tool stores a packed weight, and what it takes to read one back.

N outputs, K inputs, G groups, b bits, in every file of this room.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.header import FLOATS

# Tensors of one packed module, by what their names have after the module's.
Parts = Mapping[str, Tensor]
Shapes = Mapping[str, list[int]]
Types = Mapping[str, tuple[str, ...]]
WORDS, INDEX, SCALES = ("I32",), ("I32", "I64"), ("F16", "BF16", "F32")
PLAIN = "weight"


@dataclass(frozen=True)
class Coding:
    """How one packed weight is coded. bits: of a code. shapes: of every tensor it consists of, by
    suffix. facts: what else its layout has to know to decode it. quantizes_inputs: whether servers
    quantize what flows into the linear too, which nothing here does."""

    bits: int
    shapes: Shapes
    facts: Any = None
    quantizes_inputs: bool = False


@dataclass(frozen=True)
class Layout:
    """How a quantization method stores a weight.

    probes: suffixes of codes; a module is packed where it has one of them, unless that is `weight`
    and holds floating point. optional: suffixes that may be missing. types: by suffix, what
    safetensors may call the type of a tensor.
    read(config, folder): what `describe` wants to know of a quantization_config, and of other files
    beside it; InputError for a variant that is not read. describe(said, name, module, found): the
    coding of a linear or an embedding by what was read and the shapes that were found; InputError
    where they do not fit. decode(parts, coding): its weight, float32 [N, K].
    renamed: what stands in the names of tensors that its maker renames or stacks, so that they are
    not transformers'.
    """

    probes: tuple[str, ...]
    optional: tuple[str, ...]
    types: Types
    read: Callable[[Mapping[str, Any], Path], Any]
    describe: Callable[[Any, str, nn.Module, Shapes], Coding]
    decode: Callable[[Parts, Coding], Tensor]
    renamed: tuple[str, ...] = ()

    def is_packed(self, types: Mapping[str, str]) -> bool:
        """Whether a module is packed. types: safetensors' type of each of its tensors, by
        suffix."""
        found = [probe for probe in self.probes if probe in types]
        return any(probe != PLAIN or types[probe] not in FLOATS for probe in found)


def measure(module: nn.Module) -> tuple[int, int]:
    """N and K of a linear; of an embedding its tokens and channels."""
    weight = module.get_parameter("weight")
    return weight.shape[0], weight.shape[1]


def refuse(what: str, remedy: str = "compare a checkpoint of another format") -> None:
    """Raise InputError for a variant that is not read."""
    raise InputError(f"the candidate's {what}", remedy)


def dequantize(codes: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor | None) -> Tensor:
    """(codes − zeros) · scales in float32 [N, K], from codes [N, K] and zeros and scales [N, G].
    groups [K]: the group of each input, where groups are not runs of equal length."""
    rows, columns = codes.shape
    zeros, scales = zeros.float(), scales.float()
    if groups is not None:
        at = groups.long()
        return codes.float().sub_(zeros[:, at]).mul_(scales[:, at])
    grouped = codes.view(rows, scales.shape[1], -1).float()
    return grouped.sub_(zeros[:, :, None]).mul_(scales[:, :, None]).view(rows, columns)


def dequantize_blocks(
    codes: Tensor, zeros: Tensor | None, scales: Tensor, block: tuple[int, int]
) -> Tensor:
    """(codes − zeros) · scales in float32 [N, K], where each `block` of rows and columns shares a
    scale, down to what is left at the edges. zeros, scales: one for each block, in any shape."""
    rows, columns = codes.shape
    down, along = -(-rows // block[0]), -(-columns // block[1])

    def spread(values: Tensor) -> Tensor:
        tall = values.float().reshape(down, along).repeat_interleave(block[0], 0)[:rows]
        return tall if along == 1 else tall.repeat_interleave(block[1], 1)[:, :columns]

    centred = codes.float() if zeros is None else codes.float() - spread(zeros)
    return centred * spread(scales)


def group_index(parts: Parts, suffix: str, groups: int) -> Tensor | None:
    """The group of each input; None where there is no such tensor, or one that was never filled in
    (−1). A group out of range raises InputError."""
    index = parts.get(suffix)
    if index is None or bool((index == -1).all()):
        return None
    if not (0 <= int(index.min()) <= int(index.max()) < groups):
        raise InputError(f"a {suffix} holds groups out of range", "download the checkpoint again")
    return index


def count_groups(size: int, name: str, module: nn.Module) -> int:
    """Groups of a linear in groups of `size`, -1 for one a row."""
    _, columns = measure(module)
    groups = 1 if size == -1 else -(-columns // size)
    if size != -1 and columns % size:
        raise InputError(
            f"group size {size} does not divide the {columns} inputs of {name}",
            "repair the candidate's config.json",
        )
    return groups
