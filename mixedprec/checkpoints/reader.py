"""A quantized checkpoint on disk, read tensor by tensor."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.checkpoints.packing import from_compressed_tensors, from_gemm
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import (
    check_config,
    check_directory,
    check_pattern,
    read_json,
)
from awqscope.mixedprec.models.weight_files import find_weight_files, read_tensors
from awqscope.mixedprec.models.weights import index_tensors
from awqscope.mixedprec.scheme import Scheme, read_group_size

QUANTIZED_SUFFIXES = {
    "compressed-tensors": (
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_shape",
    ),
    "awq": ("qweight", "qzeros", "scales"),
}


def checkpoint_bytes(folder: Path) -> int:
    """Bytes of all tensors of a checkpoint; the files' headers, which no server keeps, left out."""
    files = read_tensors(find_weight_files(folder))
    return sum(tensor.size for _, tensors in files for tensor in tensors.values())


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint on disk, read tensor by tensor. `files`: tensor name -> file."""

    folder: Path
    quantization: dict[str, Any]
    files: dict[str, Path]

    def tensor(self, name: str) -> Tensor:
        """A tensor as stored."""
        with safe_open(self.files[name], framework="pt") as file:
            return file.get_tensor(name).clone()

    def linear(self, name: str) -> Quantized | Tensor | None:
        """A linear of the blocks: packed ones as `Quantized`, with the scheme that config.json
        gives them by its own rules; 16-bit ones as their weight; None where there is none."""
        fmt = self.quantization["quant_method"]
        suffixes = QUANTIZED_SUFFIXES[fmt]
        if f"{name}.{suffixes[0]}" in self.files:
            parts = [part for part in suffixes if f"{name}.{part}" in self.files]
            tensors = {part: self.tensor(f"{name}.{part}") for part in parts}
            decode = from_gemm if fmt == "awq" else from_compressed_tensors
            try:
                return decode(tensors, _scheme_on_disk(self.quantization, name))
            except ValueError as error:
                raise InputError(
                    f"{name} in {self.folder} cannot be unpacked ({error})",
                    "write the checkpoint again from the run",
                ) from error
        full = f"{name}.weight"
        return self.tensor(full) if full in self.files else None


def open_checkpoint(folder: Path) -> StoredCheckpoint:
    """Index a quantized checkpoint by its config.json and its files' headers. InputError where it
    is damaged, or holds what nobody writes in good faith (`mixedprec/files/untrusted.py`)."""
    again = "write it again from the run"
    check_directory(folder)
    source = folder / "config.json"
    try:
        config = read_json(source)
        check_config(source, config)
        quantization = config["quantization_config"]
        check_quantization(quantization)
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged ({error})", again) from error
    try:
        files = index_tensors(folder)
    except InputError as error:
        raise InputError(error.what, again) from error
    return StoredCheckpoint(folder, quantization, files)


def check_quantization(quantization: Any) -> None:
    """Raise AttributeError, LookupError, TypeError or ValueError unless `quantization` has
    the form that awqscope writes, with all that `StoredCheckpoint.linear` needs to know."""
    method = quantization["quant_method"]
    if method not in QUANTIZED_SUFFIXES:
        raise ValueError(f"the quantization method {method!r} is not ours")
    groups = [quantization]
    if method == "compressed-tensors":
        groups = [group["weights"] for group in quantization["config_groups"].values()]
        for group in quantization["config_groups"].values():
            for target in group["targets"]:
                check_pattern(target.removeprefix("re:"))
    for weights in groups:
        bits = weights["bits" if method == "awq" else "num_bits"]
        Scheme(bits, read_group_size(weights), bool(weights.get("symmetric", False)))


def _scheme_on_disk(quantization: dict[str, Any], linear: str) -> Scheme:
    """The scheme that the checkpoint's own config gives to a linear."""
    if quantization["quant_method"] == "awq":
        return Scheme(quantization["bits"], read_group_size(quantization), False)
    found = [
        group["weights"]
        for group in quantization["config_groups"].values()
        if any(re.match(target.removeprefix("re:"), linear) for target in group["targets"])
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} config groups match {linear}; exactly one must")
    weights = found[0]
    return Scheme(
        weights["num_bits"], read_group_size(weights), bool(weights.get("symmetric", True))
    )
