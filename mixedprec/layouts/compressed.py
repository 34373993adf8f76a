"""compressed-tensors, pack-quantized: weight_packed [N, K/(32/b)], weight_scale [N, G],
weight_zero_point [N/(32/b), G] unless symmetric, weight_shape [2], weight_g_idx [K] with activation
order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.matching import Groups, read_agreed, read_groups
from awqscope.mixedprec.checkpoints.packing import unpack
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.layout import (
    INDEX,
    SCALES,
    WORDS,
    Coding,
    Layout,
    Parts,
    Shapes,
    count_groups,
    dequantize,
    group_index,
    measure,
    refuse,
)
from awqscope.mixedprec.scheme import BITS


def _read_compressed(config: Mapping[str, Any], folder: Path) -> Groups:
    """Its config groups."""
    groups = config.get("config_groups") or {}
    if not groups:
        refuse("quantization_config has no config_groups", "repair its config.json")
    for group in groups.values():
        stored = group.get("format") or config.get("format")
        weights = group.get("weights") or {}
        if stored != "pack-quantized":
            refuse(f"compressed-tensors format is {stored}", "pack-quantized is read")
        if group.get("input_activations") or group.get("output_activations"):
            refuse("activations are quantized too", "compare one whose weights alone are")
        if weights.get("type", "int") != "int" or weights.get("num_bits") not in BITS:
            refuse(f"weights are {weights.get('type')} of {weights.get('num_bits')} bits")
        if weights.get("strategy", "group") not in ("group", "channel"):
            refuse(f"weights have a scale by {weights['strategy']}", "group and channel are read")
    for entry in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if config.get(entry) and (config[entry] or {}).get("format") != "dense":
            refuse(f"quantization_config has a {entry}", "compare one without it")
    return read_groups(config)


def _describe_compressed(groups: Groups, name: str, module: nn.Module, found: Shapes) -> Coding:
    try:
        declared = read_agreed(name, groups)
    except ValueError as error:
        raise InputError(f"the candidate's {error}", "repair its config.json") from error
    bits, (rows, columns) = declared.bits, measure(module)
    count = count_groups(declared.group_size, name, module)
    per_word = 32 // bits
    shapes = {
        "weight_packed": [rows, -(-columns // per_word)],
        "weight_scale": [rows, count],
        "weight_shape": [2],
        "weight_g_idx": [columns],
    }
    if not declared.symmetric:
        # Early versions did not pack zero points.
        plain = found.get("weight_zero_point") == [rows, count]
        shapes["weight_zero_point"] = [rows if plain else -(-rows // per_word), count]
    return Coding(bits, shapes)


def _decode_compressed(parts: Parts, coding: Coding) -> Tensor:
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
        zeros = unpack(zeros.T.contiguous(), coding.bits, rows).T
    codes = unpack(parts["weight_packed"], coding.bits, columns)
    index = group_index(parts, "weight_g_idx", groups)
    return dequantize(codes, zeros, parts["weight_scale"], index)


COMPRESSED = Layout(
    ("weight_packed",),
    ("weight_g_idx",),
    {
        "weight_packed": WORDS,
        "weight_scale": SCALES,
        "weight_zero_point": (*WORDS, "I8"),
        "weight_shape": INDEX,
        "weight_g_idx": INDEX,
    },
    _read_compressed,
    _describe_compressed,
    _decode_compressed,
)
