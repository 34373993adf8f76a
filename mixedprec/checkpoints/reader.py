"""A quantized checkpoint on disk, read tensor by tensor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from awqscope.mixedprec.models.catalogue import Catalogue, Stored, open_catalogue
from awqscope.mixedprec.models.weights import read_tensor, report_unreadable
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
    return open_catalogue(folder).bytes


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint on disk, read tensor by tensor. quantization: config.json's entry. catalogue:
    what its files hold."""

    quantization: dict[str, Any]
    catalogue: Catalogue

    @property
    def folder(self) -> Path:
        """Its directory."""
        return self.catalogue.folder

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """What is known of every tensor, by name."""
        return self.catalogue.tensors

    def tensor(self, name: str) -> Tensor:
        """A tensor as stored. InputError where its file cannot be read."""
        stored = self.tensors[name]
        with report_unreadable(stored.path):
            return read_tensor(stored)

    def linear(self, name: str) -> Quantized | Tensor | None:
        """A linear of the blocks: packed ones as `Quantized`, with the scheme that config.json
        gives them by its own rules; 16-bit ones as their weight; None where there is none."""
        fmt = self.quantization["quant_method"]
        suffixes = QUANTIZED_SUFFIXES[fmt]
        if f"{name}.{suffixes[0]}" in self.tensors:
            parts = [part for part in suffixes if f"{name}.{part}" in self.tensors]
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
        return self.tensor(full) if full in self.tensors else None


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
        catalogue = open_catalogue(folder)
    except InputError as error:
        raise InputError(error.what, again) from error
    return StoredCheckpoint(quantization, catalogue)


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
