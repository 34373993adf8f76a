"""NVIDIA ModelOpt 0.47, by the algorithm of each linear (`quant_algo`).

INT4: weight uint8 [N/2, K], rows 2i and 2i+1 in the low and high half of a byte, two's complement;
weight_scale [N, G]. INT8 and FP8: weight [N, K]; weight_scale one a weight or a row. NVFP4: weight
uint8 [N, K/2], neighbours in a row in the low and high half; weight_scale F8_E4M3 [N, G], times
weight_scale_2. pre_quant_scale [K], of any of them, multiplies the input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.layouts.layout import (
    PLAIN,
    SCALES,
    Coding,
    Layout,
    Parts,
    Shapes,
    dequantize_blocks,
    measure,
    refuse,
)
from awqscope.mixedprec.words import join_words

# What config.json leaves out, or has nothing of at all, stands in a file of its own.
BESIDE = "hf_quant_config.json"
MIXED = "MIXED_PRECISION"
SCALE, SECOND, FACTORS, INPUT = "weight_scale", "weight_scale_2", "pre_quant_scale", "input_scale"
# FP4 (E2M1) by code; from the eighth on negative.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True)
class _Algorithm:
    """How a `quant_algo` stores weights. bits: of a code. shape: of `weight`, from N and K. codes:
    [N, K] from what is stored. in_groups: whether rows have several scales. inputs: whether
    activations are quantized too."""

    bits: int
    shape: Callable[[int, int], list[int]]
    codes: Callable[[Tensor], Tensor]
    in_groups: bool
    inputs: bool


def _signed_rows(stored: Tensor) -> Tensor:
    """INT4 codes [N, K] of bytes [N/2, K]."""
    low, high = stored & 15, stored >> 4
    codes = torch.stack((low, high), dim=1).flatten(0, 1).to(torch.int8)
    return torch.where(codes > 7, codes - 16, codes)


def _float_pairs(stored: Tensor) -> Tensor:
    """FP4 values [N, K] of bytes [N, K/2]."""
    codes = torch.stack((stored & 15, stored >> 4), dim=2).flatten(1)
    table = torch.tensor([*E2M1, *(-value for value in E2M1)])
    return table[codes.int()]


def _whole(rows: int, columns: int) -> list[int]:
    return [rows, columns]


def _int4(inputs: bool) -> _Algorithm:
    return _Algorithm(4, lambda rows, columns: [rows // 2, columns], _signed_rows, True, inputs)


def _nvfp4(inputs: bool) -> _Algorithm:
    return _Algorithm(4, lambda rows, columns: [rows, columns // 2], _float_pairs, True, inputs)


def _bytes(inputs: bool) -> _Algorithm:
    return _Algorithm(8, _whole, Tensor.float, False, inputs)


ALGORITHMS: Mapping[str, _Algorithm] = {
    "W4A16_AWQ": _int4(inputs=False),
    "W8A16": _bytes(inputs=False),
    "W8A8_SQ_PER_CHANNEL": _bytes(inputs=True),
    "FP8": _bytes(inputs=True),
    "FP8_PER_CHANNEL_PER_TOKEN": _bytes(inputs=True),
    "NVFP4": _nvfp4(inputs=True),
    "NVFP4_AWQ": _nvfp4(inputs=True),
    "W4A16_NVFP4": _nvfp4(inputs=False),
}


@dataclass(frozen=True)
class _Said:
    """What is said of the linears. every: their `quant_algo`; None where each has its own.
    single: linear -> its own."""

    every: str | None
    single: Mapping[str, str]


def _read_modelopt(config: Mapping[str, Any], folder: Path) -> _Said:
    """The algorithms of its linears."""
    stated = {**_read_beside(folder), **config}
    algorithm = stated.get("quant_algo")
    layers = stated.get("quantized_layers") or {}
    single = {name: str(layer["quant_algo"]) for name, layer in layers.items()}
    used = sorted(set(single.values())) if algorithm == MIXED else [str(algorithm)]
    unknown = [each for each in used if each not in ALGORITHMS]
    if unknown or not used:
        refuse(
            f"ModelOpt algorithm is {', '.join(unknown) or algorithm}",
            f"{join_words(tuple(ALGORITHMS))} are read, and {MIXED} of them",
        )
    if stated.get("kv_cache_quant_algo") or stated.get("kv_cache_scheme"):
        refuse("cache is quantized too", "compare one without kv_cache_quant_algo")
    return _Said(None, single) if algorithm == MIXED else _Said(str(algorithm), {})


def _read_beside(folder: Path) -> Mapping[str, Any]:
    """What hf_quant_config.json says; nothing where there is none."""
    path = folder / BESIDE
    if not path.exists():
        return {}
    try:
        return dict(read_json(path).get("quantization") or {})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read", "download the checkpoint again") from error


def _describe_modelopt(said: _Said, name: str, module: nn.Module, found: Shapes) -> Coding:
    own = said.every or said.single.get(name)
    if own is None:
        raise InputError(
            f"the candidate's quantized_layers say nothing of {name}", "repair its config.json"
        )
    algorithm, (rows, columns) = ALGORITHMS[own], measure(module)
    scale = list(found.get(SCALE, ()))
    if algorithm.in_groups:
        groups = scale[-1] if scale else 0
        if not groups or columns % groups:
            raise InputError(
                f"{name} has {groups} groups for {columns} inputs", "download the checkpoint again"
            )
        block, wanted = (1, columns // groups), [rows, groups]
    elif scale in ([], [1]):
        block, wanted = (rows, columns), scale
    else:
        block, wanted = (1, columns), [rows, 1] if scale == [rows, 1] else [rows]
    shapes = {PLAIN: algorithm.shape(rows, columns), SCALE: wanted}
    if algorithm.codes is _float_pairs:
        shapes[SECOND] = [1] if found.get(SECOND) == [1] else []
    if FACTORS in found:
        shapes[FACTORS] = [columns]
    if algorithm.inputs and found.get(INPUT) in ([], [1]):
        shapes[INPUT] = found[INPUT]
    return Coding(algorithm.bits, shapes, (algorithm, block), quantizes_inputs=algorithm.inputs)


def _decode_modelopt(parts: Parts, coding: Coding) -> Tensor:
    algorithm, block = coding.facts
    scales = parts[SCALE].float()
    if SECOND in parts:
        scales = scales * parts[SECOND].float()
    weight = dequantize_blocks(algorithm.codes(parts[PLAIN]), None, scales, block)
    return weight * parts[FACTORS].float() if FACTORS in parts else weight


MODELOPT = Layout(
    (PLAIN,),
    (),
    {
        PLAIN: ("U8", "I8", "F8_E4M3"),
        SCALE: (*SCALES, "F8_E4M3"),
        SECOND: SCALES,
        FACTORS: SCALES,
        INPUT: SCALES,
    },
    _read_modelopt,
    _describe_modelopt,
    _decode_modelopt,
)
