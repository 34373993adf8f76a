"""AutoGPTQ's and GPTQModel's words, at 2, 3, 4 and 8 bits: qweight [K·b/32, N], qzeros [G, N·b/32],
scales [G, N], g_idx [K], the group of each input.

Zero points are stored less one, but in checkpoint_format gptq_v2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack_stream
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

# At other widths GPTQModel packs by planes.
GPTQ_BITS = (2, 3, 4, 8)


def _read_gptq(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether its zero points are stored one too small."""
    stored = "marlin" if config.get("is_marlin_format") else _gptq_format(config)
    if stored not in ("gptq", "gptq_v2"):
        refuse(f"GPTQ checkpoint_format is {stored}", "gptq and gptq_v2 are read")
    return stored == "gptq"


def _gptq_format(config: Mapping[str, Any]) -> str:
    """GPTQModel has written it under either name; AutoGPTQ wrote neither."""
    return str(config.get("checkpoint_format") or config.get("format") or "gptq")


def _describe_gptq(plus_one: bool, name: str, module: nn.Module, found: Shapes) -> Coding:
    # GPTQModel's `dynamic` gives linears widths and groups of their own: the shapes tell both.
    rows, columns = measure(module)
    words = found["qweight"][0] if found["qweight"] else 0
    bits, rest = divmod(words * 32, columns)
    if rest or bits not in GPTQ_BITS:
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
    return Coding(bits, shapes, facts=plus_one)


def _decode_gptq(parts: Parts, coding: Coding) -> Tensor:
    groups, rows = coding.shapes["scales"]
    (columns,) = coding.shapes["g_idx"]
    codes = unpack_stream(parts["qweight"], coding.bits, columns).T.contiguous()
    words = parts["qzeros"].T.contiguous()
    if coding.facts and 32 % coding.bits == 0:
        # GPTQModel takes the ones off whole words, so that below a zero point of 0 the next one is
        # borrowed from; only adding them back to whole words gives what it was made with.
        words = words + sum(1 << position for position in range(0, 32, coding.bits))
    zeros = unpack_stream(words, coding.bits, rows)
    if coding.facts and 32 % coding.bits:
        zeros = (zeros + 1) & (2**coding.bits - 1)
    index = group_index(parts, "g_idx", groups)
    return dequantize(codes, zeros, parts["scales"].T, index)


GPTQ = Layout(
    ("qweight",),
    ("g_idx",),
    {"qweight": WORDS, "qzeros": WORDS, "scales": SCALES, "g_idx": INDEX},
    _read_gptq,
    _describe_gptq,
    _decode_gptq,
)
