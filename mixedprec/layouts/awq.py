"""The words of autoawq 0.2.9 and GPTQModel 7.7, by `version`; at 4 bits if nothing else is said.

gemm: qweight [K, N·b/32], qzeros [G, N·b/32], scales [G, N], words of int32; at 2 to 8 bits, of
which GPTQModel writes those other than 4 as a plain stream along N. gemv: qweight [N, K/8], qzeros
[N, P/8], scales [N, P], P the groups and some that are never used. gemv_fast: qweight [N/4, K] in
int16, scales [P, N], and instead of zero points qzeros [P, N] in floating point, what is added to
code · scale; llm-awq calls those scaled_zeros.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack, unpack_fast, unpack_gemm, unpack_stream
from awqscope.mixedprec.errors import InputError
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

BITS, STREAM_BITS = 4, (2, 3, 4, 5, 6, 7, 8)
# How many words of zero points a row has is a multiple of this, by the size of groups.
GEMV_WORDS = {16: 8, 32: 4, 64: 2}


@dataclass(frozen=True)
class Version:
    """One way to lay out 4-bit words. shapes(rows, columns, groups, size): of its tensors.
    decode(parts, groups): as a layout's. rows, columns: what both must be multiples of."""

    shapes: Callable[[int, int, int, int], dict[str, list[int]]]
    decode: Callable[[Parts, int], Tensor]
    rows: int = 8
    columns: int = 1


def shape_gemm(rows: int, columns: int, groups: int, bits: int) -> dict[str, list[int]]:
    """The shapes of GEMM's tensors."""
    words = -(-rows * bits // 32)
    return {"qweight": [columns, words], "qzeros": [groups, words], "scales": [groups, rows]}


def _shape_gemm_4(rows: int, columns: int, groups: int, size: int) -> dict[str, list[int]]:
    return shape_gemm(rows, columns, groups, BITS)


def _decode_gemm_4(parts: Parts, groups: int) -> Tensor:
    codes, zeros = unpack_gemm(parts["qweight"]), unpack_gemm(parts["qzeros"])
    return dequantize(codes, zeros, parts["scales"].T, None)


def _decode_stream(parts: Parts, bits: int) -> Tensor:
    rows = parts["scales"].shape[1]
    words = (parts[name].T.contiguous() for name in ("qweight", "qzeros"))
    codes, zeros = (unpack_stream(each, bits, rows) for each in words)
    return dequantize(codes, zeros, parts["scales"].T, None)


def _pad_groups(groups: int, size: int) -> int:
    """How many words a row's zero points take, eight a word."""
    step = GEMV_WORDS.get(size, 1)
    return -(-groups // (8 * step)) * step


def _shape_gemv(rows: int, columns: int, groups: int, size: int) -> dict[str, list[int]]:
    words = _pad_groups(groups, size)
    return {"qweight": [rows, columns // 8], "qzeros": [rows, words], "scales": [rows, words * 8]}


def _decode_gemv(parts: Parts, groups: int) -> Tensor:
    codes = unpack(parts["qweight"], BITS, parts["qweight"].shape[1] * 8)
    zeros = unpack(parts["qzeros"], BITS, groups)
    return dequantize(codes, zeros, parts["scales"][:, :groups], None)


def _shape_fast(added: str) -> Callable[[int, int, int, int], dict[str, list[int]]]:
    def shape(rows: int, columns: int, groups: int, size: int) -> dict[str, list[int]]:
        padded = [_pad_groups(groups, size) * 8, rows]
        return {"qweight": [rows // 4, columns], "scales": padded, added: padded}

    return shape


def _decode_fast(added: str) -> Callable[[Parts, int], Tensor]:
    def decode(parts: Parts, groups: int) -> Tensor:
        if not parts[added].is_floating_point():
            raise ValueError(f"{added} are {parts[added].dtype}")
        codes = unpack_fast(parts["qweight"])
        rows, columns = codes.shape
        scales, added_to = (
            parts[name][:groups].T[:, :, None].float() for name in ("scales", added)
        )
        return (codes.view(rows, groups, -1) * scales + added_to).view(rows, columns)

    return decode


VERSIONS: Mapping[str, Version] = {
    "gemm": Version(_shape_gemm_4, _decode_gemm_4),
    "gemv": Version(_shape_gemv, _decode_gemv, columns=8),
    "gemv_fast": Version(_shape_fast("qzeros"), _decode_fast("qzeros"), columns=64),
    "llm-awq": Version(_shape_fast("scaled_zeros"), _decode_fast("scaled_zeros"), columns=64),
}


@dataclass(frozen=True)
class Said:
    """What config.json says: the version of its words, and the size of its groups."""

    version: str
    size: int


def _read_awq(config: Mapping[str, Any], folder: Path) -> Said:
    version = str(config.get("version") or config.get("checkpoint_format") or "gemm").lower()
    bits = config.get("bits", BITS)
    if version not in VERSIONS or bits not in (STREAM_BITS if version == "gemm" else (BITS,)):
        refuse(
            f"AWQ format is {version} at {bits} bits",
            f"{', '.join(VERSIONS)} are read at 4 bits, gemm at 2 to 8",
        )
    return Said(version, read_group_size(config))


def _describe_awq(said: Said, name: str, module: nn.Module, found: Shapes) -> Coding:
    rows, columns = measure(module)
    groups, kind = count_groups(said.size, name, module), VERSIONS[said.version]
    # GPTQModel's `dynamic` gives linears widths of their own.
    words = found.get("qweight", [0, 0])[-1]
    bits = words * 32 // rows
    if said.version == "gemm" and bits in STREAM_BITS and bits != BITS:
        return Coding(bits, shape_gemm(rows, columns, groups, bits))
    if rows % kind.rows or columns % kind.columns:
        raise InputError(
            f"{name} has {rows} outputs and {columns} inputs, "
            f"which AWQ's {said.version} does not pack",
            "repair the candidate's config.json",
        )
    shapes = kind.shapes(rows, columns, groups, columns // groups)
    return Coding(BITS, shapes, facts=(said.version, groups))


def _decode_awq(parts: Parts, coding: Coding) -> Tensor:
    if coding.facts is None:
        return _decode_stream(parts, coding.bits)
    version, groups = coding.facts
    return VERSIONS[version].decode(parts, groups)


AWQ = Layout(
    ("qweight",),
    (),
    {
        "qweight": (*WORDS, "I16"),
        "qzeros": (*WORDS, "F16", "BF16"),
        "scaled_zeros": SCALES,
        "scales": SCALES,
    },
    _read_awq,
    _describe_awq,
    _decode_awq,
)
