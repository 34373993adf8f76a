"""AutoGPTQ's and GPTQModel's words: qweight [K·b/32, N], qzeros [G, N·b/32], scales [G, N], g_idx
[K], the group of each input.

At 2, 3, 4 and 8 bits in checkpoint_format gptq and gptq_v2, a stream of bits; at 2 to 8 bits in
GPTQModel's gptq_p, planes of them. Zero points are stored less one in gptq alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack_planes, unpack_stream
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.layout import (
    INDEX,
    SCALES,
    WORDS,
    Coding,
    Layout,
    Parts,
    Shapes,
    dequantize,
    group_index,
    measure,
    refuse,
)

STREAM_BITS, ALL_BITS = (2, 3, 4, 8), (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Packing:
    """How GPTQ's words are packed. less_one: zero points are stored one too small. planes: as
    planes of bits, not a stream. bits: widths that are written so."""

    less_one: bool
    planes: bool = False
    bits: tuple[int, ...] = STREAM_BITS


PACKINGS: Mapping[str, Packing] = {
    "gptq": Packing(less_one=True),
    "gptq_v2": Packing(less_one=False),
    "gptq_p": Packing(less_one=False, planes=True, bits=ALL_BITS),
}


def _read_gptq(config: Mapping[str, Any], folder: Path) -> Packing:
    """How its words are packed."""
    stored = "marlin" if config.get("is_marlin_format") else _gptq_format(config)
    if stored not in PACKINGS:
        refuse(f"GPTQ checkpoint_format is {stored}", f"{', '.join(PACKINGS)} are read")
    return PACKINGS[stored]


def _gptq_format(config: Mapping[str, Any]) -> str:
    """GPTQModel has written it under either name; AutoGPTQ wrote neither."""
    return str(config.get("checkpoint_format") or config.get("format") or "gptq")


def describe_gptq(packing: Packing, name: str, module: nn.Module, found: Shapes) -> Coding:
    """The coding of a module by the shapes of its words."""
    # GPTQModel's `dynamic` gives linears widths and groups of their own: the shapes tell both.
    rows, columns = measure(module)
    words = found["qweight"][0] if found["qweight"] else 0
    bits, rest = divmod(words * 32, columns)
    if rest or bits not in packing.bits:
        raise InputError(
            f"{name}.qweight has {words} rows of words, which is no width for {columns} inputs",
            "download the checkpoint again",
        )
    groups = found["scales"][0] if found.get("scales") else 0
    if "g_idx" not in found and columns % max(groups, 1):
        raise InputError(
            f"{name} has {groups} groups for {columns} inputs and no g_idx",
            "download the checkpoint again",
        )
    shapes = {
        "qweight": [words, rows],
        "qzeros": [groups, -(-rows * bits // 32)],
        "scales": [groups, rows],
        "g_idx": [columns],
    }
    return Coding(bits, shapes, facts=packing)


def decode_gptq(parts: Parts, coding: Coding) -> Tensor:
    """The weight that GPTQ's words stand for."""
    packing: Packing = coding.facts
    unpack = unpack_planes if packing.planes else unpack_stream
    groups, rows = coding.shapes["scales"]
    (columns,) = coding.shapes["g_idx"]
    codes = unpack(parts["qweight"], coding.bits, columns).T.contiguous()
    words = parts["qzeros"].T.contiguous()
    if packing.less_one and 32 % coding.bits == 0:
        # GPTQModel takes the ones off whole words, so that below a zero point of 0 the next one is
        # borrowed from; only adding them back to whole words gives what it was made with.
        words = words + sum(1 << position for position in range(0, 32, coding.bits))
    zeros = unpack(words, coding.bits, rows)
    if packing.less_one and 32 % coding.bits:
        zeros = (zeros + 1) & (2**coding.bits - 1)
    index = group_index(parts, "g_idx", groups)
    return dequantize(codes, zeros, parts["scales"].T, index)


GPTQ = Layout(
    ("qweight",),
    ("g_idx",),
    {"qweight": WORDS, "qzeros": WORDS, "scales": SCALES, "g_idx": INDEX},
    _read_gptq,
    describe_gptq,
    decode_gptq,
)
