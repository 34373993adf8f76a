"""Tensors of a checkpoint on disk: which file holds which, and reading them a part at a time."""

import contextlib
import errno
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.experts import Part
from awqscope.mixedprec.families.table import FAMILIES, Family
from awqscope.mixedprec.models.streams import list_slices
from awqscope.mixedprec.models.weight_files import (
    WeightFiles,
    find_weight_files,
    not_permitted,
    read_tensors,
)

T = TypeVar("T")
# Names that older checkpoints give a module of today's transformers.
OLD_NAMES = {"lm_head.weight": "embed_out.weight"}
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = frozenset(f"{family.embedding}.weight" for family in FAMILIES.values())
# What is read of a file stays in memory while it is open: large tensors come in parts.
BYTES_A_READ = 64 * 2**20


@contextlib.contextmanager
def report_unreadable(path: Path) -> Iterator[None]:
    """InputError for a weights file that cannot be read."""
    try:
        yield
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read ({error})", "download it again") from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        if isinstance(error, PermissionError):
            raise not_permitted(path) from error
        raise InputError(f"{path} cannot be read ({error})", "download it again") from error


def stamp_file(path: Path) -> tuple[int, int] | None:
    """Time of the last change and size of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def stamp_files(files: Mapping[str, Path]) -> dict[Path, tuple[int, int]]:
    """The stamps of the files that hold tensors."""
    stamps = {path: stamp_file(path) for path in set(files.values())}
    return {path: stamp for path, stamp in stamps.items() if stamp is not None}


def read_parts(path: Path, name: str) -> Iterator[tuple[int, Tensor]]:
    """A stored tensor a few rows at a time, each with the number of its first."""
    with safe_open(path, framework="pt") as file:
        held = held_name(file, name)
        shape = file.get_slice(held).get_shape()
    # A row of float32, the largest type of a weight.
    row = max(1, math.prod(shape[1:]) * 4)
    for part in list_slices(shape[0], max(1, BYTES_A_READ // row)):
        with safe_open(path, framework="pt") as file:
            yield part.start, file.get_slice(held)[part]


def read_tensor(
    path: Path, name: str, dtype: torch.dtype | None, part: Part | None = None
) -> Tensor:
    """A stored tensor, or a part of one, in memory of its own, as `dtype` or in the stored type."""
    # Opened for each: what has been read of a file stays in memory while it is open.
    with safe_open(path, framework="pt") as file:
        stored = file.get_slice(held_name(file, part.tensor if part else name))
        shape = stored.get_shape()
        if part is not None:
            mapped = part.cut(stored)
        elif math.prod(shape) * 4 <= BYTES_A_READ:
            mapped = file.get_tensor(held_name(file, name))
        else:
            mapped = None
        if mapped is not None:
            return mapped.to(dtype or mapped.dtype, copy=True)
    values = torch.empty(0)
    for first, rows in read_parts(path, name):
        if first == 0:
            values = torch.empty(shape, dtype=dtype or rows.dtype)
        values[first : first + len(rows)] = rows
    return values


def not_finite(name: str, path: Path, dtype: torch.dtype | None = None) -> InputError:
    """The error for a tensor that is not finite as stored, or where it is, as `dtype`."""
    if dtype == torch.float16 and all(is_finite(part) for _, part in read_parts(path, name)):
        return too_large(f"tensor {name} in {path.name}")
    return InputError(
        f"tensor {name} in {path.name} holds NaN or infinity",
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
    and takes no memory."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def index_tensors(path: Path) -> dict[str, Path]:
    """Tensor name -> file, of the files that hold the weights of the checkpoint in `path`.
    InputError where transformers would load none of the files there, for a file that is damaged,
    and for a tensor that is in two of them."""
    return index_files(find_weight_files(path))


def index_files(files: WeightFiles) -> dict[str, Path]:
    """Tensor name -> file, by the headers of a checkpoint's files."""
    return {name: path for path, tensors in read_tensors(files) for name in tensors}


def name_fully(files: dict[str, T], family: Family, tied: bool) -> dict[str, T]:
    """The tensors by the names of transformers' whole model. files: by stored name.

    Some checkpoints, BLOOM's and old OPTs among them, hold its body alone, without the first part
    of each name. A model whose head is its embedding (`tied`) may store it as the head only.
    """
    embedding = f"{family.embedding}.weight"
    body, _, blocks = family.blocks.partition(".")
    if any(name.startswith(f"{blocks}.") for name in files):
        known = ("lm_head.", body + ".")
        files = {n if n.startswith(known) else f"{body}.{n}": held for n, held in files.items()}
    head = next((name for name in HEADS if name in files), None)
    if tied and embedding not in files and head is not None:
        files = {embedding if name == head else name: held for name, held in files.items()}
    return files


def held_name(file: Any, name: str) -> str:
    """What an open file that holds the tensor `name` calls it: see `name_fully`."""
    names = file.keys()
    bare = name.partition(".")[2]
    if name in names or bare in names or name not in EMBEDDINGS:
        return name if name in names else bare
    return next((head for head in HEADS if head in names), bare)


def stored_name(name: str, files: Mapping[str, Any]) -> str:
    """What a parameter is called in this checkpoint."""
    old = OLD_NAMES.get(name, name)
    return old if name not in files and old in files else name
