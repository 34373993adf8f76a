"""A quantized checkpoint on disk, read tensor by tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.checkpoints.matching import Declared, Groups, read_agreed, read_groups
from awqscope.mixedprec.checkpoints.packing import (
    cut_compressed_tensors,
    cut_gemm,
    from_compressed_tensors,
    from_gemm,
)
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import check_config, check_directory, read_json
from awqscope.mixedprec.models.catalogue import Catalogue, Stored, open_catalogue
from awqscope.mixedprec.models.weights import read_slice, read_tensor, report_unreadable
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
    """A checkpoint on disk, read tensor by tensor. method: of QUANTIZED_SUFFIXES. said: what
    config.json says of packed linears, by config groups or of all alike. catalogue: what its files
    hold."""

    method: str
    said: Groups | Scheme
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

    def scheme(self, linear: str) -> Scheme:
        """What config.json says of a packed linear. ValueError where that is not one thing."""
        if isinstance(self.said, Scheme):
            return self.said
        return _make_scheme(read_agreed(linear, self.said))

    def linear(self, name: str) -> Quantized | Tensor | None:
        """A linear of the blocks: packed ones as `Quantized`, with the scheme that config.json
        gives them by its own rules; 16-bit ones as their weight; None where there is none."""
        packed = self._read_packed(name)
        if packed is not None:
            return self._decode(name, packed)
        full = f"{name}.weight"
        return self.tensor(full) if full in self.tensors else None

    def open_linear(self, name: str) -> Callable[[int, int], Quantized | Tensor] | None:
        """What reads rows of a linear of the blocks, from a multiple of CUT to where they end, as
        `linear` has them; a packed one is kept as it is packed meanwhile."""
        packed = self._read_packed(name)
        stored = self.tensors.get(f"{name}.weight")
        if packed is None and stored is None:
            return None

        def read(first: int, stop: int) -> Quantized | Tensor:
            if packed is not None:
                if self.method == "awq":
                    return self._decode(name, cut_gemm(packed, first, stop))
                bits = self.scheme(name).bits
                return self._decode(name, cut_compressed_tensors(packed, first, stop, bits))
            assert stored is not None
            with report_unreadable(stored.path):
                return read_slice(stored, first, stop)

        return read

    def stored(self, name: str) -> dict[str, Stored]:
        """What is known of the tensors that a linear's weight consists of, by suffix."""
        suffixes = ("weight", *QUANTIZED_SUFFIXES[self.method])
        full = {part: f"{name}.{part}" for part in suffixes}
        return {part: self.tensors[key] for part, key in full.items() if key in self.tensors}

    def _read_packed(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of a packed linear by suffix, as stored; None for one that is not packed."""
        suffixes = QUANTIZED_SUFFIXES[self.method]
        if f"{name}.{suffixes[0]}" not in self.tensors:
            return None
        parts = [part for part in suffixes if f"{name}.{part}" in self.tensors]
        return {part: self.tensor(f"{name}.{part}") for part in parts}

    def _decode(self, name: str, packed: dict[str, Tensor]) -> Quantized:
        decode = from_gemm if self.method == "awq" else from_compressed_tensors
        try:
            return decode(packed, self.scheme(name))
        except ValueError as error:
            raise InputError(
                f"{name} in {self.folder} cannot be unpacked ({error})",
                "write the checkpoint again from the run",
            ) from error


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
        said = _read_quantization(quantization)
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged ({error})", again) from error
    try:
        catalogue = open_catalogue(folder)
    except InputError as error:
        raise InputError(error.what, again) from error
    return StoredCheckpoint(quantization["quant_method"], said, catalogue)


def _read_quantization(quantization: Any) -> Groups | Scheme:
    """What a `quantization_config` of the form that awqscope writes says of packed linears.
    AttributeError, LookupError, TypeError, ValueError or InputError for any other."""
    method = quantization["quant_method"]
    if method not in QUANTIZED_SUFFIXES:
        raise ValueError(f"the quantization method {method!r} is not ours")
    if method == "awq":
        return Scheme(quantization["bits"], read_group_size(quantization), False)
    groups = read_groups(quantization)
    for declared in groups.targets.values():
        _make_scheme(declared)
    return groups


def _make_scheme(declared: Declared) -> Scheme:
    """What was declared as a scheme. InputError for one that is out of range."""
    return Scheme(declared.bits, declared.group_size, declared.symmetric)
