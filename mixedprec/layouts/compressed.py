"""compressed-tensors.

pack-quantized: weight_packed [N, K/(32/b)], weight_scale [N, G], weight_zero_point [N/(32/b), G]
unless symmetric, weight_shape [2], weight_g_idx [K] with activation order. From 0.18 on
codes straddle words: at widths that do not divide 32 there are K·b/32 words a row.

int-quantized, float-quantized and naive-quantized: weight [N, K], a byte a value, whatever its
width; weight_scale and weight_zero_point one a tensor, a row, a group or a block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.matching import Declared, Groups, read_agreed, read_groups
from awqscope.mixedprec.checkpoints.packing import unpack, unpack_stream
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.layout import (
    INDEX,
    PLAIN,
    SCALES,
    WORDS,
    Coding,
    Layout,
    Parts,
    Shapes,
    count_groups,
    dequantize,
    dequantize_blocks,
    group_index,
    measure,
    refuse,
)
from awqscope.mixedprec.scheme import BITS
from awqscope.mixedprec.words import join_words

PACKED = "pack-quantized"
# Codes by format: their type, and the strategies by which they share scales.
FORMATS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    PACKED: (("int",), ("group", "channel")),
    "int-quantized": (("int",), ("tensor", "channel", "group", "block")),
    "float-quantized": (("float",), ("tensor", "channel", "group", "block")),
    "naive-quantized": (("int", "float"), ("tensor", "channel", "group", "block")),
}
# What is measured once and stored of activations: one number each.
ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")


@dataclass(frozen=True)
class _Said:
    """What a quantization_config says. groups: the same as `read_groups` has it. stated: config
    group -> its entry. formats: config group -> how its weights are stored."""

    groups: Groups
    stated: Mapping[str, Mapping[str, Any]]
    formats: Mapping[str, str]

    def has_inputs(self, group: str) -> bool:
        """Whether activations are quantized too."""
        entry = self.stated[group]
        return bool(entry.get("input_activations") or entry.get("output_activations"))


def _read_compressed(config: Mapping[str, Any], folder: Path) -> _Said:
    """Its config groups."""
    stated = config.get("config_groups") or {}
    if not stated:
        refuse("quantization_config has no config_groups", "repair its config.json")
    for group in stated.values():
        _check_group(_name_format(config, group), group.get("weights") or {})
    for entry in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if config.get(entry) and (config[entry] or {}).get("format") != "dense":
            refuse(f"quantization_config has a {entry}", "compare one without it")
    formats = {name: _name_format(config, group) for name, group in stated.items()}
    return _Said(read_groups(config), stated, formats)


def _name_format(config: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """The format of a config group: its own, or that of all."""
    return str(group.get("format") or config.get("format"))


def _check_group(stored: str, weights: Mapping[str, Any]) -> None:
    """Raise InputError for a config group that is not read."""
    if stored not in FORMATS:
        refuse(f"compressed-tensors format is {stored}", f"{join_words(tuple(FORMATS))} are read")
    types, strategies = FORMATS[stored]
    kind, bits = weights.get("type", "int"), weights.get("num_bits")
    if kind not in types or bits not in (BITS if kind == "int" else (8,)):
        refuse(f"weights are {kind} of {bits} bits")
    if weights.get("strategy", "group") not in strategies:
        refuse(
            f"weights have a scale by {weights['strategy']}",
            f"{join_words(strategies)} are read of {stored}",
        )


def _read_block(weights: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of the blocks that share a scale. ValueError for anything else."""
    found = weights.get("block_structure")
    # Early versions wrote "128x128".
    sizes = found.split("x") if isinstance(found, str) else list(found or ())
    rows, columns = (int(size) for size in sizes)
    if min(rows, columns) < 1:
        raise ValueError(f"block_structure is {found}")
    return rows, columns


def _describe_compressed(said: _Said, name: str, module: nn.Module, found: Shapes) -> Coding:
    try:
        declared = read_agreed(name, said.groups)
    except ValueError as error:
        raise InputError(f"the candidate's {error}", "repair its config.json") from error
    weights, inputs = said.stated[declared.group]["weights"], said.has_inputs(declared.group)
    if said.formats[declared.group] == PACKED:
        shapes, block = _describe_words(declared, name, module, found), None
    else:
        shapes, block = _describe_bytes(weights, declared, name, module, found)
    if inputs:
        shapes |= {part: found[part] for part in ACTIVATIONS if found.get(part) in ([1], [])}
    return Coding(declared.bits, shapes, facts=block, quantizes_inputs=inputs)


def _describe_words(
    declared: Declared, name: str, module: nn.Module, found: Shapes
) -> dict[str, list[int]]:
    """The shapes of what a weight in words consists of."""
    rows, columns = measure(module)
    count = count_groups(declared.group_size, name, module)

    def count_words(codes: int, stored: int | None) -> int:
        dense = -(-codes * declared.bits // 32)
        return dense if stored == dense else -(-codes // (32 // declared.bits))

    words = found["weight_packed"][-1] if found.get("weight_packed") else None
    shapes = {
        "weight_packed": [rows, count_words(columns, words)],
        "weight_scale": [rows, count],
        "weight_shape": [2],
        "weight_g_idx": [columns],
    }
    if not declared.symmetric:
        zeros = found.get("weight_zero_point")
        # Early versions did not pack zero points.
        words = rows if zeros == [rows, count] else count_words(rows, zeros[0] if zeros else None)
        shapes["weight_zero_point"] = [words, count]
    return shapes


def _describe_bytes(
    weights: Mapping[str, Any], declared: Declared, name: str, module: nn.Module, found: Shapes
) -> tuple[dict[str, list[int]], tuple[int, int]]:
    """The shapes of what a weight of a byte a value consists of, and of the blocks that share a
    scale."""
    rows, columns = measure(module)
    if weights.get("strategy") == "tensor":
        block, grid = (rows, columns), [] if found.get("weight_scale") == [] else [1]
    elif weights.get("strategy") == "block":
        block = _read_block(weights)
        grid = [-(-rows // block[0]), -(-columns // block[1])]
    else:
        count = count_groups(declared.group_size, name, module)
        block, grid = (1, columns // count), [rows, count]
    shapes = {PLAIN: [rows, columns], "weight_scale": grid}
    if not declared.symmetric:
        shapes["weight_zero_point"] = grid
    if declared.group_size != -1:
        shapes["weight_g_idx"] = [columns]
    return shapes, block


def _decode_compressed(parts: Parts, coding: Coding) -> Tensor:
    return _decode_words(parts, coding) if coding.facts is None else _decode_bytes(parts, coding)


def _decode_words(parts: Parts, coding: Coding) -> Tensor:
    rows, groups = coding.shapes["weight_scale"]
    (columns,) = coding.shapes["weight_g_idx"]
    middle = 2 ** (coding.bits - 1)
    zeros = parts.get("weight_zero_point")
    if zeros is None:
        zeros = torch.full((rows, groups), middle, dtype=torch.uint8)
    elif (zeros.dtype == torch.int8) != (list(zeros.shape) == [rows, groups]):
        raise ValueError(f"zero points are {zeros.dtype} {list(zeros.shape)}")
    elif zeros.dtype == torch.int8:
        zeros = zeros.int() + middle
    else:
        zeros = _unpack_words(zeros.T.contiguous(), coding.bits, rows).T
    codes = _unpack_words(parts["weight_packed"], coding.bits, columns)
    index = group_index(parts, "weight_g_idx", groups)
    return dequantize(codes, zeros, parts["weight_scale"], index)


def _unpack_words(words: Tensor, bits: int, columns: int) -> Tensor:
    """Codes [R, columns] of words [R, W], by how many words there are."""
    if words.ndim == 2 and words.shape[1] * 32 < -(-columns // (32 // bits)) * 32:
        return unpack_stream(words.T.contiguous(), bits, columns).T.contiguous()
    return unpack(words, bits, columns)


def _decode_bytes(parts: Parts, coding: Coding) -> Tensor:
    scales, zeros = parts["weight_scale"], parts.get("weight_zero_point")
    index = group_index(parts, "weight_g_idx", scales.shape[-1]) if scales.ndim == 2 else None
    if index is None:
        return dequantize_blocks(parts[PLAIN], zeros, scales, coding.facts)
    zeros = torch.zeros_like(scales) if zeros is None else zeros
    return dequantize(parts[PLAIN], zeros, scales, index)


COMPRESSED = Layout(
    ("weight_packed", PLAIN),
    ("weight_g_idx",),
    {
        "weight_packed": WORDS,
        PLAIN: ("I8", "F8_E4M3"),
        "weight_scale": SCALES,
        "weight_zero_point": (*WORDS, "I8"),
        "weight_shape": INDEX,
        "weight_g_idx": INDEX,
        **dict.fromkeys(ACTIVATIONS, (*SCALES, "I8", "F8_E4M3")),
    },
    _read_compressed,
    _describe_compressed,
    _decode_compressed,
)
