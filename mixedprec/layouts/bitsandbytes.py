"""bitsandbytes as transformers saves it: NF4 and FP4 in blocks that run through a whole matrix,
their maxima perhaps quantized once more, and the rows of LLM.int8.

4 bits: weight bytes [N·K/2, 1], the first value in the high half, in words of any type;
weight.absmax [blocks]; weight.quant_map [16]; weight.quant_state.bitsandbytes__nf4, JSON. With
double quantization weight.nested_absmax and weight.nested_quant_map [256] as well. 8 bits: weight
int8 [N, K], SCB [N]; LLM.int8 rounds the inputs too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.header import FLOATS
from awqscope.mixedprec.files.untrusted import parse_json
from awqscope.mixedprec.layouts.layout import PLAIN, Coding, Layout, Parts, Shapes, measure

STATE = "weight.quant_state.bitsandbytes__"
STATES = tuple(STATE + kind for kind in ("nf4", "fp4"))
MAXIMA, MAP = "weight.absmax", "weight.quant_map"
NESTED, NESTED_MAP = "weight.nested_absmax", "weight.nested_quant_map"
ROW_MAXIMA, ORDER = "SCB", "weight_format"
# How many maxima share one where these are quantized once more.
NESTED_BLOCK = 256
# int8 rows stand for their largest value by 127.
LARGEST = 127
# Bytes of the types that 4-bit codes are kept in: bytes, or what FSDP shards.
STORAGE = (1, 2, 4)


@dataclass(frozen=True)
class _Packed:
    """A matrix in 4 bits: the suffix of its state, N, K, whether its maxima are quantized."""

    state: str
    rows: int
    columns: int
    nested: bool


def _read_bitsandbytes(config: Mapping[str, Any], folder: Path) -> None:
    """Nothing: every matrix says for itself how it is stored."""


def _describe_bitsandbytes(said: None, name: str, module: nn.Module, found: Shapes) -> Coding:
    rows, columns = measure(module)
    if ROW_MAXIMA in found:
        shapes = {PLAIN: [rows, columns], ROW_MAXIMA: [rows], ORDER: []}
        return Coding(8, shapes, quantizes_inputs=True)
    state = next((state for state in STATES if state in found), None)
    if state is None:
        raise InputError(
            f"{name} has no {STATES[0]} or fp4, which says how it is packed",
            "save it again by transformers' save_pretrained",
        )
    blocks = found[MAXIMA][0] if found[MAXIMA] else 0
    length = -(-rows * columns // 2)
    stored = found.get(PLAIN, [])
    sizes = [[length // size, 1] for size in STORAGE if length % size == 0]
    shapes = {
        PLAIN: stored if stored in sizes else sizes[0],
        MAXIMA: [blocks],
        MAP: [16],
        state: found[state][:1],
    }
    if NESTED in found:
        shapes |= {NESTED: [-(-blocks // NESTED_BLOCK)], NESTED_MAP: [256]}
    return Coding(4, shapes, _Packed(state, rows, columns, NESTED in found))


def _decode_bitsandbytes(parts: Parts, coding: Coding) -> Tensor:
    if coding.facts is None:
        return _decode_rows(parts)
    return _decode_blocks(parts, coding.facts)


def _decode_rows(parts: Parts) -> Tensor:
    if ORDER in parts and int(parts[ORDER]) != 0:
        raise InputError(
            "its rows are in the order of a GPU's kernel",
            "load and save it by a bitsandbytes of version 0.45 or later",
        )
    if parts[PLAIN].dtype != torch.int8:
        raise ValueError(f"its codes are {parts[PLAIN].dtype}")
    return parts[PLAIN].float().mul_(parts[ROW_MAXIMA][:, None] / LARGEST)


def _decode_blocks(parts: Parts, packed: _Packed) -> Tensor:
    state = _read_state(parts[packed.state], packed)
    count = packed.rows * packed.columns
    maxima = _read_maxima(parts, state) if packed.nested else parts[MAXIMA]
    if len(maxima) != -(-count // state["blocksize"]) or not maxima.is_floating_point():
        raise ValueError(f"{len(maxima)} maxima of {maxima.dtype} for blocks {state['blocksize']}")
    octets = parts[PLAIN].flatten().view(torch.uint8)
    if len(octets) != -(-count // 2):
        raise ValueError(f"{len(octets)} bytes hold {count} codes of 4 bits")
    codes = torch.stack([octets >> 4, octets & 15], dim=1).flatten()[:count]
    values = parts[MAP].index_select(0, codes.int())
    values *= maxima.repeat_interleave(state["blocksize"])[:count]
    return values.view(packed.rows, packed.columns)


def _read_state(octets: Tensor, packed: _Packed) -> Mapping[str, Any]:
    """What a matrix's quant_state says. ValueError where it is not this matrix's."""
    state = parse_json(bytes(octets.tolist()).decode("utf-8"))
    if not isinstance(state, dict):
        raise ValueError("its quant_state is no JSON object")
    wanted: dict[str, Any] = {
        "shape": [packed.rows, packed.columns],
        "quant_type": packed.state[len(STATE) :],
    }
    if packed.nested:
        wanted["nested_blocksize"] = NESTED_BLOCK
    for entry, value in wanted.items():
        if state.get(entry) != value:
            raise ValueError(f"its quant_state says {entry} {str(state.get(entry))[:40]}")
    size = state.get("blocksize")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"its quant_state says blocksize {str(size)[:40]}")
    return state


def _read_maxima(parts: Parts, state: Mapping[str, Any]) -> Tensor:
    """The blocks' maxima where they are quantized once more, float32 [blocks]."""
    codes, offset = parts[MAXIMA], state.get("nested_offset")
    if codes.dtype != torch.uint8 or not isinstance(offset, int | float):
        raise ValueError(f"its maxima are {codes.dtype}, and their offset {str(offset)[:40]}")
    shared = parts[NESTED].repeat_interleave(NESTED_BLOCK)[: len(codes)]
    return parts[NESTED_MAP].index_select(0, codes.int()) * shared + offset


BITSANDBYTES = Layout(
    (MAXIMA, ROW_MAXIMA),
    (ORDER,),
    {
        PLAIN: ("U8", "I8", *sorted(FLOATS - {"F64"})),
        MAXIMA: ("U8", "F32"),
        MAP: ("F32",),
        NESTED: ("F32",),
        NESTED_MAP: ("F32",),
        **dict.fromkeys(STATES, ("U8",)),
        ROW_MAXIMA: ("F32",),
        ORDER: ("U8",),
    },
    _read_bitsandbytes,
    _describe_bitsandbytes,
    _decode_bitsandbytes,
)
