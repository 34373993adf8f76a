"""MLX's affine quantization: weight [N, K·b/32], a stream of bits along each row in words of
uint32; scales and biases [N, G]. A weight is scale · code + bias. Embeddings are packed alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack_stream
from awqscope.mixedprec.layouts.layout import (
    PLAIN,
    SCALES,
    Coding,
    Layout,
    Parts,
    Shapes,
    count_groups,
    measure,
    refuse,
)

MLX_BITS = (2, 3, 4, 5, 6, 8)
MLX_GROUPS = (32, 64, 128)


@dataclass(frozen=True)
class _Declared:
    """How a module is quantized."""

    bits: int
    group_size: int


@dataclass(frozen=True)
class _Modules:
    """How modules are quantized: by their names, and all others."""

    named: Mapping[str, _Declared]
    others: _Declared


def _read_mlx(config: Mapping[str, Any], folder: Path) -> _Modules:
    """How each module is quantized: entries that are objects are of the module of that name."""
    named = {
        name: _read_declared({**config, **entry})
        for name, entry in config.items()
        if isinstance(entry, dict)
    }
    return _Modules(named, _read_declared(config))


def _read_declared(entry: Mapping[str, Any]) -> _Declared:
    mode, bits, size = entry.get("mode", "affine"), entry["bits"], entry["group_size"]
    if mode != "affine":
        refuse(f"MLX mode is {mode}", "affine is read (mlx_lm.convert -q --q-mode affine)")
    if bits not in MLX_BITS or size not in MLX_GROUPS:
        refuse(f"MLX weights are of {bits} bits in groups of {size}")
    return _Declared(bits, size)


def _describe_mlx(modules: _Modules, name: str, module: nn.Module, found: Shapes) -> Coding:
    rows, columns = measure(module)
    declared = modules.named.get(name, modules.others)
    groups = count_groups(declared.group_size, name, module)
    words = columns * declared.bits // 32
    return Coding(
        declared.bits, {PLAIN: [rows, words], "scales": [rows, groups], "biases": [rows, groups]}
    )


def _decode_mlx(parts: Parts, coding: Coding) -> Tensor:
    rows, words = coding.shapes[PLAIN]
    columns = words * 32 // coding.bits
    # Arithmetic on unsigned words is not to be had everywhere: the bits are the same.
    stream = parts[PLAIN].view(torch.int32).T.contiguous()
    codes = unpack_stream(stream, coding.bits, columns).T
    scales, biases = (parts[part].float()[:, :, None] for part in ("scales", "biases"))
    grouped = codes.reshape(rows, scales.shape[1], -1).float()
    return grouped.mul_(scales).add_(biases).view(rows, columns)


MLX = Layout(
    (PLAIN,),
    (),
    {PLAIN: ("U32",), "scales": SCALES, "biases": SCALES},
    _read_mlx,
    _describe_mlx,
    _decode_mlx,
    renamed=(".switch_mlp.", "language_model.", "model.h."),
)
