"""Checkpoints with one rule of the servers broken each, and what their tensors mean when read by
themselves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
BLOCK = "model.layers.{}.{}"


@dataclass
class Opened:
    """A checkpoint in memory, to be spoiled. `quantization`: config.json's entry."""

    quantization: dict[str, Any]
    tensors: Tensors

    @property
    def groups(self) -> dict[str, Any]:
        return self.quantization["config_groups"]

    @property
    def ignore(self) -> list[str]:
        return self.quantization["ignore"]

    def pack(self, linear: str, bits: int, symmetric: bool, group: int) -> None:
        """Store a linear anew at other settings, rounded to nearest."""
        weight = meaning(self.tensors)[linear]
        for part in ("weight", "weight_packed", "weight_scale", "weight_zero_point"):
            self.tensors.pop(f"{linear}.{part}", None)
        rows, columns = weight.shape
        grouped = weight.view(rows, -1, group)
        top, middle = 2**bits - 1, 2 ** (bits - 1)
        if symmetric:
            scale = grouped.abs().amax(2) / (middle - 1)
            zero = torch.full_like(scale, middle)
        else:
            low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
            scale = (high - low) / top
            zero = (-low / scale).round()
        scale = scale.half()
        codes = (grouped / scale.float()[:, :, None] + zero[:, :, None]).round().clamp(0, top)
        self.tensors[f"{linear}.weight_packed"] = words(codes.view(rows, columns), bits)
        self.tensors[f"{linear}.weight_scale"] = scale
        self.tensors[f"{linear}.weight_shape"] = torch.tensor([rows, columns])
        if not symmetric:
            packed = words(zero.T.contiguous(), bits).T.contiguous()
            self.tensors[f"{linear}.weight_zero_point"] = packed

    def unpack(self, linear: str) -> None:
        """Store a linear at 16 bits."""
        weight = meaning(self.tensors)[linear].half()
        for part in ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"):
            self.tensors.pop(f"{linear}.{part}", None)
        self.tensors[f"{linear}.weight"] = weight

    def declare(
        self, name: str, targets: list[str], bits: int, symmetric: bool, group: int
    ) -> None:
        """Add a config group at the end."""
        weights = {
            "num_bits": bits,
            "type": "int",
            "symmetric": symmetric,
            "strategy": "group",
            "group_size": group,
        }
        self.groups[name] = {"targets": targets, "weights": weights, "format": "pack-quantized"}


def words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes [rows, columns] in int32 words along the columns, the first one lowest."""
    fields = codes.numpy().astype(np.uint32).reshape(len(codes), -1, 32 // bits)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    joined = np.bitwise_or.reduce(fields << shifts, axis=2).astype(np.uint32)
    return torch.from_numpy(joined.view(np.int32).copy())


def fields(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of int32 words, along the last axis."""
    raw = packed.numpy().view(np.uint32)[..., None]
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (raw >> shifts) & np.uint32(2**bits - 1)
    return torch.from_numpy(codes.reshape(*packed.shape[:-1], -1).astype(np.float32))


def meaning(tensors: Tensors) -> Tensors:
    """The weight of every linear of the blocks, float32, by what is stored of it and nothing else:
    the width by the words a row, asymmetric where there are zero points."""
    found = {}
    for name, value in tensors.items():
        linear, _, part = name.rpartition(".")
        if part == "weight" and value.ndim == 2 and "embed" not in name:
            found[linear] = value.float()
        if part == "weight_packed":
            rows, columns = tensors[f"{linear}.weight_shape"].tolist()
            bits = value.shape[1] * 32 // columns
            scale = tensors[f"{linear}.weight_scale"].float()
            zero = torch.full_like(scale, 2 ** (bits - 1))
            if f"{linear}.weight_zero_point" in tensors:
                stored = tensors[f"{linear}.weight_zero_point"].T.contiguous()
                zero = fields(stored, bits).T[:rows]
            codes = fields(value, bits).view(rows, scale.shape[1], -1)
            found[linear] = ((codes - zero[:, :, None]) * scale[:, :, None]).view(rows, columns)
    return found


def spoil(source: Path, out: Path, change: Callable[[Opened], None]) -> Path:
    """A copy of the checkpoint `source` with a change."""
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text())
    opened = Opened(config["quantization_config"], load_file(out / "model.safetensors"))
    change(opened)
    (out / "config.json").write_text(json.dumps(config))
    save_file(opened.tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out
