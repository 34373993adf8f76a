"""HQQ in safetensors, as transformers 4 and hqq itself write it: W_q, the codes of one group a row
(axis 1) or a column (axis 0), packed in layers of rows with the first in the highest bits; scale
and zero, floating point, one a group. Everything else stands beside them in small tensors.

Groups run through the flattened [N, K]. Codes of 5 and 6 bits are stored in 8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.layout import (
    SCALES,
    Coding,
    Layout,
    Parts,
    Shapes,
    measure,
    refuse,
)

CODES, PACKING = "W_q", "packing"
NUMBERS = ("axis", "group_size", "nbits")
FLAGS = (
    "channel_wise",
    "encoded_state_dict",
    "offload_meta",
    "optimize",
    "quant_scale",
    "quant_zero",
    "round_zero",
    "stores_quant_config",
    "view_as_float",
)
TEXTS = ("compute_dtype", PACKING, "unpack_view_dtype")
# Of what may stand beside the codes, what decides how they are read.
NEEDED = {"axis", "shape", PACKING, "scale", "zero"}


@dataclass(frozen=True)
class _Packing:
    """How codes lie in words: how many rows of them share one row of words, and hqq's name."""

    bits: int
    layers: int
    name: str


PACKINGS = (
    _Packing(8, 1, "8bit_u8"),
    _Packing(4, 2, "4bit_u8"),
    _Packing(3, 10, "3bit_32"),
    _Packing(2, 4, "2bit_u8"),
)


@dataclass(frozen=True)
class _Packed:
    """A matrix: how its codes lie, N and K, and how many rows and columns of codes it has."""

    packing: _Packing
    shape: tuple[int, int]
    grouped: tuple[int, int]


def _read_hqq(config: Mapping[str, Any], folder: Path) -> None:
    """Nothing: every matrix says for itself how it is stored."""
    said = config.get("quant_config") or {}
    if said.get("scale_quant_params") or said.get("zero_quant_params"):
        refuse("scales or zero points are quantized too", "compare one without that")


def _describe_hqq(said: None, name: str, module: nn.Module, found: Shapes) -> Coding:
    rows, columns = measure(module)
    scale = found.get("scale") or [0, 0]
    groups = max(1, *scale)
    size = rows * columns // groups
    grouped = (groups, size) if scale[-1] == 1 else (size, groups)
    words = found[CODES][0] if found[CODES] else 0
    packing = next((p for p in PACKINGS if words == -(-grouped[0] // p.layers)), None)
    if packing is None or size * groups != rows * columns:
        raise InputError(
            f"{name}.{CODES} has {words} rows of words and {groups} groups, which is no packing of "
            f"{rows} × {columns}",
            "download the checkpoint again",
        )
    each = [groups, 1] if grouped[0] == groups else [1, groups]
    shapes = {CODES: [words, grouped[1]], "scale": each, "zero": each, "shape": [2]}
    shapes |= {part: [] for part in (*NUMBERS, *FLAGS)}
    shapes |= {part: found[part][:1] for part in TEXTS if part in found}
    return Coding(packing.bits, shapes, _Packed(packing, (rows, columns), grouped))


def _decode_hqq(parts: Parts, coding: Coding) -> Tensor:
    packed: _Packed = coding.facts
    name = bytes(parts[PACKING].tolist()).decode("ascii", "replace")
    shape, axis = tuple(parts["shape"].tolist()), int(parts["axis"])
    by_column = parts["scale"].shape != (packed.grouped[0], 1)
    if name != packed.packing.name or shape != packed.shape or axis != (0 if by_column else 1):
        raise ValueError(f"it says of itself packing {name}, shape {shape} and axis {axis}")
    words, bits = parts[CODES], packed.packing.bits
    if (words.dtype == torch.int32) != (bits == 3):
        raise ValueError(f"its words are {words.dtype}")
    shifts = range(bits * (packed.packing.layers - 1), -1, -bits)
    codes = torch.cat([(words >> shift) & (2**bits - 1) for shift in shifts])
    weight = codes[: packed.grouped[0]].float()
    return weight.sub_(parts["zero"]).mul_(parts["scale"]).view(packed.shape)


HQQ = Layout(
    (CODES,),
    tuple(sorted({*NUMBERS, *FLAGS, *TEXTS} - NEEDED)),
    {
        CODES: ("U8", "I32"),
        "scale": SCALES,
        "zero": SCALES,
        "shape": ("I64", "I32"),
        **dict.fromkeys(NUMBERS, ("I32", "F32")),
        **dict.fromkeys((*FLAGS, *TEXTS), ("U8",)),
    },
    _read_hqq,
    _describe_hqq,
    _decode_hqq,
)
