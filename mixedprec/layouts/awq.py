"""autoawq 0.2.9's GEMM: qweight [K, N/8], qzeros [G, N/8], scales [G, N], words of int32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack_gemm
from awqscope.mixedprec.layouts.layout import (
    SCALES,
    WORDS,
    Coding,
    Layout,
    Parts,
    Shapes,
    count_groups,
    dequantize,
    measure,
    refuse,
)
from awqscope.mixedprec.scheme import read_group_size


def _read_awq(config: Mapping[str, Any], folder: Path) -> int:
    """The size of its groups."""
    if str(config.get("version", "gemm")).lower() != "gemm" or config.get("bits", 4) != 4:
        version, bits = config.get("version"), config.get("bits")
        refuse(f"AWQ format is {version} at {bits} bits", "4-bit GEMM is read")
    return read_group_size(config)


def _describe_awq(size: int, name: str, module: nn.Module, found: Shapes) -> Coding:
    rows, columns = measure(module)
    groups = count_groups(size, name, module)
    words = rows // 8
    shapes = {"qweight": [columns, words], "qzeros": [groups, words], "scales": [groups, rows]}
    return Coding(4, shapes)


def _decode_awq(parts: Parts, coding: Coding) -> Tensor:
    codes, zeros = unpack_gemm(parts["qweight"]), unpack_gemm(parts["qzeros"])
    return dequantize(codes, zeros, parts["scales"].T, None)


AWQ = Layout(
    ("qweight",),
    (),
    {"qweight": WORDS, "qzeros": WORDS, "scales": SCALES},
    _read_awq,
    _describe_awq,
    _decode_awq,
)
