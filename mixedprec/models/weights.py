"""The values of a checkpoint's tensors, read a part at a time from where its catalogue says."""

import contextlib
import errno
import hashlib
import math
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.catalogue import Stored
from awqscope.mixedprec.models.streams import list_slices
from awqscope.mixedprec.models.weight_files import not_permitted

# Large tensors come in parts; counted in float32, the largest type of a weight.
BYTES_A_READ = 64 * 2**20
# torch's types by safetensors' names. Those of less than a byte are read by nobody here.
TYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}


@contextlib.contextmanager
def report_unreadable(path: Path) -> Iterator[None]:
    """InputError for a weights file that cannot be read."""
    try:
        yield
    except PermissionError as error:
        raise not_permitted(path) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise
        raise InputError(f"{path} cannot be read ({error})", "download it again") from error


def read_parts(stored: Stored) -> Iterator[tuple[int, Tensor]]:
    """A stored tensor a few rows at a time, each with the number of its first. OSError where its
    file cannot be read, ValueError where that has become shorter or holds an unknown type."""
    count, *rest = stored.shape or (1,)
    row = max(1, math.prod(rest) * torch.float32.itemsize)
    with open(stored.path, "rb", buffering=0) as file:
        for part in list_slices(count, max(1, BYTES_A_READ // row)):
            values = torch.empty((part.stop - part.start, *rest), dtype=_name_type(stored))
            _read_into(values, file, stored.begin + part.start * (stored.size // count))
            yield part.start, values


def read_slice(stored: Stored, first: int, stop: int) -> Tensor:
    """Rows `first` to `stop` of a stored tensor, in the stored type. Errors are those of
    `read_parts`."""
    count, *rest = stored.shape
    values = torch.empty((stop - first, *rest), dtype=_name_type(stored))
    with open(stored.path, "rb", buffering=0) as file:
        _read_into(values, file, stored.begin + first * (stored.size // count))
    return values


def read_tensor(stored: Stored, dtype: torch.dtype | None = None) -> Tensor:
    """A stored tensor in memory of its own, as `dtype` or in the stored type. Errors are those of
    `read_parts`."""
    held = _name_type(stored)
    values = torch.empty(stored.shape, dtype=dtype or held)
    if values.dtype == held:
        with open(stored.path, "rb", buffering=0) as file:
            _read_into(values, file, stored.begin)
        return values
    rows = values.view(stored.shape or (1,))
    for first, part in read_parts(stored):
        rows[first : first + len(part)] = part
    return values


def _name_type(stored: Stored) -> torch.dtype:
    if stored.dtype not in TYPES:
        raise ValueError(f"it holds values of the type {stored.dtype}")
    return TYPES[stored.dtype]


def _read_into(values: Tensor, file: FileIO, begin: int) -> None:
    """Fill `values` from the bytes of a file from `begin` on."""
    if not values.numel():
        return
    left = values.view(-1).view(torch.uint8).numpy().data
    file.seek(begin)
    while left:
        # The system gives 2 GiB at a time at most.
        read = file.readinto(left)
        if not read:
            raise ValueError("it has become shorter")
        left = left[read:]


def not_finite(name: str, stored: Stored, dtype: torch.dtype | None = None) -> InputError:
    """The error for the tensor `name` that is not finite as stored, or where it is, as `dtype`."""
    if dtype == torch.float16 and all(is_finite(part) for _, part in read_parts(stored)):
        return too_large(f"tensor {name} in {stored.path.name}")
    return InputError(
        f"tensor {name} in {stored.path.name} holds NaN or infinity",
        "repair or re-download the checkpoint",
    )


def too_large(name: str, largest: float | None = None) -> InputError:
    """The error for what float16 cannot hold."""
    size = "" if largest is None else f" (up to {largest:,.0f})"
    return InputError(
        f"{name} holds values{size} above 65,504, the largest of float16",
        "give --dtype bfloat16, to serve it in that type",
    )


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. The sum tells, but for large values that overflow it,
    and takes no memory but for floats of eight bits, which torch cannot add."""
    if values.is_floating_point() and values.element_size() == 1:
        values = values.bfloat16()
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
