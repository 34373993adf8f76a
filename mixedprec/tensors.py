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

from mixedprec.errors import InputError
from mixedprec.experts import Part
from mixedprec.families import Family
from mixedprec.safetensors_header import read_header
from mixedprec.streams import list_slices
from mixedprec.untrusted import list_visible, read_json

T = TypeVar("T")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Names that older checkpoints give a module of today's transformers.
OLD_NAMES = {"lm_head.weight": "embed_out.weight"}
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
        return InputError(
            f"tensor {name} in {path.name} holds values above 65,504, the largest of float16",
            "give --dtype bfloat16, to serve it in that type",
        )
    return InputError(
        f"tensor {name} in {path.name} holds NaN or infinity",
        "repair or re-download the checkpoint",
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
    """Tensor name -> file, from the headers of every safetensors file of the checkpoint.
    InputError for a file that is missing or damaged, or outside of the directory."""
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is damaged", "download the checkpoint again") from error
        for name in names:
            if not isinstance(name, str) or name != Path(name).name or name[:1] in ("", "."):
                raise InputError(
                    f"{index} names a file outside of its directory, or a hidden one "
                    f"({str(name)[:80]!r})",
                    "download the checkpoint again, from a source that you trust",
                )
        found = [path / name for name in names]
    else:
        found = list_visible(path, "*.safetensors")
    if not found:
        if any(any(path.glob(pattern)) for pattern in PICKLED):
            raise InputError(
                f"{path} holds its weights as a pickle, which is never loaded",
                "convert it to safetensors first (transformers: save_pretrained)",
            )
        raise InputError(f"{path} holds no safetensors file", "download the whole checkpoint")
    files: dict[str, Path] = {}
    for file in found:
        if not file.exists():
            raise InputError(f"{file} is missing", "download the whole checkpoint again")
        try:
            files |= dict.fromkeys(read_header(file).tensors, file)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} is truncated or damaged ({error})", "download it again"
            ) from error
    return files


def name_fully(files: dict[str, T], family: Family) -> dict[str, T]:
    """The tensors by the names of transformers' whole model: some checkpoints, BLOOM's and old OPTs
    among them, hold its body alone, without the first part of each name. files: by stored name."""
    body, _, bare = f"{family.embedding}.weight".partition(".")
    if bare not in files:
        return files
    known = ("lm_head.", body + ".")
    return {n if n.startswith(known) else f"{body}.{n}": held for n, held in files.items()}


def held_name(file: Any, name: str) -> str:
    """What an open file calls the tensor `name`: see `name_fully`."""
    return name if name in file.keys() else name.partition(".")[2]


def stored_name(name: str, files: dict[str, Path]) -> str:
    """What a parameter is called in this checkpoint."""
    old = OLD_NAMES.get(name, name)
    return old if name not in files and old in files else name
