"""llama.cpp's K-quants and its mix Q4_K_M, by its own code.

Its Python package reads these types and does not write them. The function of ggml that
llama-quantize calls for each tensor is in the wheels of xllamacpp, which hold llama.cpp as it was
built: it is called there by its C interface. The result is what llama-quantize writes without an
importance matrix.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.studies.alternatives.rounding import (
    Blocks,
    ModelLinear,
    Rounding,
    loading,
    measure_blocks,
)
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import EXPERTS

LIBRARY = "xllamacpp"
# What llama-quantize takes instead of a type whose blocks do not tile a tensor's inputs.
INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
VALUE, DOWN, FUSED = "v_proj", "down", "qkv"
# What llama-quantize mixes by other rules: an architecture, and models of 70B by their blocks.
FALCON, LARGE = "falcon", 80


@dataclass(frozen=True)
class LlamaCpp(Blocks):
    """A type of llama.cpp's files, quantized by its own code."""

    def __call__(self, weight: Tensor) -> Tensor:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType[self.kind]
        rows, columns = weight.shape
        values = np.ascontiguousarray(weight.numpy(), dtype=np.float32)
        packed = np.zeros((rows, self.size(1, columns)), dtype=np.uint8)
        load_quantize()(int(kind), values.ctypes.data, packed.ctypes.data, 0, rows, columns, None)
        return torch.from_numpy(dequantize(packed, kind))


@cache
def load_quantize() -> Callable[..., Any]:
    """ggml_quantize_chunk(type, source, destination, start, rows, columns, importance).
    UnusableLibraryError where the package does not load or does not show it."""
    with loading(LIBRARY, "install a wheel of it for Linux, or give a GGUF file with --add"):
        from xllamacpp import xllamacpp as built

        function = ctypes.CDLL(built.__file__).ggml_quantize_chunk
    count, pointer = ctypes.c_int64, ctypes.c_void_p
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    return function


@dataclass(frozen=True)
class Q4KM:
    """The mix that llama-quantize calls Q4_K_M, inside the blocks of a dense model: Q4_K, with Q6_K
    for the values and the down projections of the first and last eighth of the blocks and of every
    third between, and Q5_K where q, k and v are one tensor."""

    library: str = LIBRARY

    def choose(self, linear: ModelLinear) -> Rounding:
        """The type of a linear. InputError for models that llama-quantize mixes by other rules."""
        if linear.kind.name == EXPERTS or linear.architecture == FALCON or linear.blocks == LARGE:
            raise InputError(
                "llama-quantize mixes Q4_K_M of such a model by rules that are not followed here",
                "give its GGUF file with --add",
            )
        kind = name_type(linear)
        tiles = linear.columns % measure_blocks(kind)[0] == 0
        return LlamaCpp(kind if tiles else INSTEAD[kind])


def name_type(linear: ModelLinear) -> str:
    """The type that the mix has for a linear whose inputs any type tiles."""
    if linear.kind.name == FUSED and len(linear.kind.linears) == 1:
        return "Q5_K"
    is_raised = linear.kind.name == DOWN or linear.name.endswith(VALUE)
    return "Q6_K" if is_raised and takes_more(linear.block, linear.blocks) else "Q4_K"


def takes_more(block: int, blocks: int) -> bool:
    """Whether a block is among those that the mix has more bits for."""
    eighth = blocks // 8
    outer = block < eighth or block >= 7 * blocks // 8
    return outer or (block - eighth) % 3 == 2
