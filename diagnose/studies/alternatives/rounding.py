"""Ways to quantize a weight by itself, without looking at any text: by the libraries they are of.

What comes out is what stands for the weight where it is used, in float32, and the bytes that it
takes on disk.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import UnitKind
from awqscope.mixedprec.layouts.bitsandbytes import BITSANDBYTES

# Values that share a maximum in NF4, and maxima that share one where these are quantized again.
NF4_BLOCK, NESTED_BLOCK = 64, 256
# Entries of the tables that codes are looked up in, float32: of weights, and of maxima.
NF4_CODES, NESTED_CODES = 16, 256
FLOAT_BYTES = 4


class UnusableLibraryError(InputError):
    """A library that is installed and cannot be used: the methods that need it cannot be made."""


@contextlib.contextmanager
def loading(library: str, remedy: str) -> Iterator[None]:
    """Raise UnusableLibraryError where the library that the block inside loads does not load."""
    try:
        yield
    except (AttributeError, ImportError, OSError) as error:
        raise UnusableLibraryError(
            f"the {library} that is installed cannot be used ({error})", remedy
        ) from error


@dataclass(frozen=True)
class ModelLinear:
    """A linear of a model. architecture: of the model, as config.json names it. block: its number,
    of so many `blocks`. kind: of its unit. name: in the block. columns: its inputs."""

    architecture: str
    block: int
    blocks: int
    kind: UnitKind
    name: str
    columns: int


class Rounding(Protocol):
    """A way to quantize one weight. tile: what its inputs must be a multiple of."""

    @property
    def tile(self) -> int: ...

    def size(self, rows: int, columns: int) -> int:
        """Bytes of a weight on disk."""
        ...

    def __call__(self, weight: Tensor) -> Tensor:
        """What stands for a weight [N, K], in float32 on the CPU."""
        ...


class Mix(Protocol):
    """Which way the weight of each linear is quantized. library: the package that does it, and that
    may not be installed."""

    @property
    def library(self) -> str: ...

    def choose(self, linear: ModelLinear) -> Rounding:
        """The way for one linear."""
        ...


def check_mix(mix: Mix, method: str, linear: ModelLinear) -> None:
    """Raise InputError where the method of this name lacks its library, or has blocks that do not
    tile the inputs of a linear."""
    if find_spec(mix.library) is None:
        raise InputError(
            f"{method} needs {mix.library}, which is not installed",
            "pip install 'awqscope[alternatives]'",
        )
    tile = mix.choose(linear).tile
    if linear.columns % tile:
        raise InputError(
            f"the blocks of {tile} of {method} do not divide the {linear.columns} inputs of "
            f"{linear.name}",
            "leave it out",
        )


@dataclass(frozen=True)
class Nf4:
    """NF4 of bitsandbytes (Dettmers et al., QLoRA, 2023): 16 codes at the quantiles of a normal
    distribution, a maximum for each 64 values. double: whether the maxima are quantized again, to
    8 bits."""

    double: bool
    library: str = "bitsandbytes"
    # Its blocks run through the whole matrix.
    tile: int = 1

    def choose(self, linear: ModelLinear) -> Rounding:
        """Itself, for every linear."""
        return self

    def size(self, rows: int, columns: int) -> int:
        """Bytes of codes, maxima and the tables of codes, without the note of a hundred bytes that
        transformers stores beside each weight."""
        values = rows * columns
        maxima = -(-values // NF4_BLOCK)
        stored = -(-values // 2) + FLOAT_BYTES * NF4_CODES
        if not self.double:
            return stored + FLOAT_BYTES * maxima
        shared = -(-maxima // NESTED_BLOCK) + NESTED_CODES
        return stored + maxima + FLOAT_BYTES * shared

    def __call__(self, weight: Tensor) -> Tensor:
        # It warns of a kernel for products, which nothing here asks it for.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        with loading(self.library, "install another version of it"):
            from bitsandbytes.functional import quantize_4bit

        codes, state = quantize_4bit(
            weight.contiguous(),
            blocksize=NF4_BLOCK,
            quant_type="nf4",
            compress_statistics=self.double,
        )
        parts = {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
        parts["weight"] = codes
        # Read as a checkpoint's is: its own code to dequantize is wrong on CPUs with AVX-512 where
        # a row is no multiple of its blocks (findings/).
        rows, columns = weight.shape
        linear = nn.Linear(columns, rows, bias=False, device="meta")
        shapes = {name: list(part.shape) for name, part in parts.items()}
        coding = BITSANDBYTES.describe(None, "a weight", linear, shapes)
        return BITSANDBYTES.decode(parts, coding)


@dataclass(frozen=True)
class Blocks:
    """How a type of llama.cpp's files is stored. kind: of GGMLQuantizationType."""

    kind: str

    @property
    def tile(self) -> int:
        return measure_blocks(self.kind)[0]

    def size(self, rows: int, columns: int) -> int:
        """Bytes of the blocks, their scales inside."""
        values, size = measure_blocks(self.kind)
        return rows * columns // values * size


@dataclass(frozen=True)
class Gguf(Blocks):
    """A type of llama.cpp's files, as its own Python package quantizes to it."""

    library: str = "gguf"

    def choose(self, linear: ModelLinear) -> Rounding:
        """Itself, for every linear."""
        return self

    def __call__(self, weight: Tensor) -> Tensor:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize, quantize

        kind = GGMLQuantizationType[self.kind]
        return torch.from_numpy(dequantize(quantize(weight.numpy(), kind), kind))


def measure_blocks(kind: str) -> tuple[int, int]:
    """Values and bytes of a block of one of llama.cpp's types."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return values, size
