"""AMD Quark 0.13, by what its configuration says of each linear.

By groups everything is transposed: weight [K, N/8] in words of eight 4-bit codes, or [K, N] in
bytes, weight_scale [G, N], weight_zero_point [G, N/8] or [G, N]; but FP8 is [N, K] and [N, G].
By channel and by tensor nothing is: weight [N, K/8] or [N, K], weight_scale [N] or [],
weight_zero_point [N/8], [N] or []. Signed codes are two's complement, and so are zero points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack, unpack_gemm
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.layout import (
    PLAIN,
    SCALES,
    WORDS,
    Coding,
    Layout,
    Parts,
    Shapes,
    count_groups,
    dequantize_blocks,
    measure,
    refuse,
)
from awqscope.mixedprec.scheme import read_group_size
from awqscope.mixedprec.words import join_words

SCALE, ZEROS = "weight_scale", "weight_zero_point"
# What is measured once and stored of activations.
ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
WIDTHS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "fp8_e4m3": 8}
# The axis that each scheme shares scales along, or has one for each entry of.
AXES: Mapping[str, tuple[int | None, ...]] = {
    "per_group": (1, -1),
    "per_channel": (0,),
    "per_tensor": (None, 0, 1, -1),
}
PACKINGS = ("reorder", "order")


@dataclass(frozen=True)
class _Spec:
    """How a weight is stored. scheme: of AXES. size: of its groups. reorder: whether values stand
    in a word as autoawq has them. inputs: whether activations are quantized too."""

    kind: str
    scheme: str
    size: int
    reorder: bool
    inputs: bool

    @property
    def bits(self) -> int:
        return WIDTHS[self.kind]

    @property
    def transposed(self) -> bool:
        return self.scheme == "per_group" and self.kind != "fp8_e4m3"


# The first pattern that a linear's name matches says how it is stored; None: not at all.
_Said = Mapping[str, _Spec | None]


def _read_quark(config: Mapping[str, Any], folder: Path) -> _Said:
    """The specification of its linears."""
    export = config.get("export") or {}
    packing, stored = export.get("pack_method", "reorder"), export.get("weight_format")
    if packing not in PACKINGS or stored not in (None, "real_quantized"):
        refuse(f"weights are {stored}, packed by {packing}", "real_quantized weights are read")
    types = config.get("layer_type_quant_config") or {}
    if config.get("kv_cache_quant_config") or types.keys() - {"Linear"}:
        refuse("configuration has more than linears", "compare one whose linears alone are")
    every = types.get("Linear") or config.get("global_quant_config")
    layers = {**(config.get("layer_quant_config") or {}), "*": every}
    return {name: _read_spec(layer or {}, packing == "reorder") for name, layer in layers.items()}


def _read_spec(layer: Mapping[str, Any], reorder: bool) -> _Spec | None:
    """One entry of the configuration."""
    weight = layer.get("weight")
    if weight is None:
        return None
    if isinstance(weight, list):
        refuse("weights are quantized more than once")
    kind, scheme = str(weight.get("dtype")), str(weight.get("qscheme"))
    if kind not in WIDTHS or scheme not in AXES or weight.get("ch_axis") not in AXES[scheme]:
        refuse(
            f"weights are {kind} {scheme} of axis {weight.get('ch_axis')}",
            f"{join_words(tuple(WIDTHS))} are read, by tensor, channel and group",
        )
    if kind != "fp8_e4m3" and weight.get("zero_point_type") not in (None, "int32"):
        refuse(f"zero points are {weight['zero_point_type']}", "int32 is read")
    if kind == "fp8_e4m3" and weight.get("scale_format") not in (None, "float32"):
        refuse(f"scales are {weight['scale_format']}", "floating point is read")
    inputs = bool(layer.get("input_tensors") or layer.get("output_tensors"))
    size = read_group_size(weight) if scheme == "per_group" else -1
    return _Spec(kind, scheme, size, reorder, inputs)


def _describe_quark(said: _Said, name: str, module: nn.Module, found: Shapes) -> Coding:
    spec = next(spec for pattern, spec in said.items() if fnmatch(name, pattern))
    if spec is None:
        raise InputError(f"the candidate's config.json leaves {name} as it was", "repair it")
    rows, columns = measure(module)
    groups = count_groups(spec.size, name, module)

    def pack(*shape: int) -> list[int]:
        return [*shape[:-1], -(-shape[-1] // 8) if spec.bits == 4 else shape[-1]]

    if spec.scheme == "per_group":
        block, wide = (1, columns // groups), [groups, rows]
        codes = pack(columns, rows) if spec.transposed else [rows, columns]
        scales, zeros = (wide if spec.transposed else [rows, groups]), pack(*wide)
    elif spec.scheme == "per_channel":
        block, codes = (1, columns), pack(rows, columns)
        scales, zeros = [rows], pack(rows)
    else:
        block, codes = (rows, columns), pack(rows, columns)
        scales = [1] if found.get(SCALE) == [1] else []
        zeros = [1] if found.get(ZEROS) == [1] else []
    shapes = {PLAIN: codes, SCALE: scales}
    if spec.kind != "fp8_e4m3":
        shapes[ZEROS] = zeros
    if spec.inputs:
        shapes |= {part: found[part] for part in ACTIVATIONS if part in found}
    return Coding(spec.bits, shapes, (spec, block, rows), quantizes_inputs=spec.inputs)


def _decode_quark(parts: Parts, coding: Coding) -> Tensor:
    spec, block, rows = coding.facts
    codes, scales = _unpack(parts[PLAIN], spec), parts[SCALE]
    zeros = _unpack(parts[ZEROS], spec) if ZEROS in parts else None
    if spec.transposed:
        codes, scales = codes[:, :rows].T, scales.T
        zeros = None if zeros is None else zeros[:, :rows].T
    elif spec.scheme == "per_channel":
        columns = block[1]
        codes = codes[:, :columns]
        zeros = None if zeros is None else zeros[:rows]
    else:
        codes = codes[:, : block[1]]
    return dequantize_blocks(codes, zeros, scales, block)


def _unpack(stored: Tensor, spec: _Spec) -> Tensor:
    """Codes, of words [R, W] or [W] as [R, 8 W] or [8 W]; a single number is no word."""
    if spec.bits == 8 or stored.ndim == 0:
        return stored
    words = stored.view(-1, stored.shape[-1])
    codes = unpack_gemm(words).T if spec.reorder else unpack(words, 4, words.shape[1] * 8)
    if spec.kind == "int4":
        signed = codes.to(torch.int8)
        codes = torch.where(signed > 7, signed - 16, signed)
    return codes.reshape(*stored.shape[:-1], -1)


QUARK = Layout(
    (PLAIN,),
    (ZEROS,),
    {
        PLAIN: (*WORDS, "I8", "U8", "F8_E4M3"),
        SCALE: SCALES,
        ZEROS: (*WORDS, "I8", "U8"),
        **dict.fromkeys(ACTIVATIONS, (*SCALES, *WORDS, "I8", "U8")),
    },
    _read_quark,
    _describe_quark,
    _decode_quark,
)
