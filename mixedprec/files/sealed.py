"""Arrays on disk that show when a bit of them has changed: the file's metadata hold their SHA-256.

A damaged safetensors file is often still a valid one. Files without a seal, of earlier versions,
are taken as they are.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors.numpy import save_file

from awqscope.mixedprec.files.atomic import claim_memory
from awqscope.mixedprec.files.header import StoredTensor, read_header

# numpy's types by safetensors' names.
TYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "F16": np.float16,
    "I32": np.int32,
    "U32": np.uint32,
    "F32": np.float32,
    "I64": np.int64,
    "U64": np.uint64,
    "F64": np.float64,
}
SEAL = "sha256"
DIGEST = re.compile("[0-9a-f]{64}")


def save_sealed(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] = {}
) -> None:
    """Write arrays and texts to a safetensors file with their seal."""
    claim_memory()
    save_file(dict(arrays), path, metadata={**metadata, SEAL: make_seal(arrays, metadata)})


def load_sealed(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and texts of a file. OSError where it cannot be read, ValueError where it is
    damaged or not what was sealed."""
    header = read_header(path)
    metadata = dict(header.metadata)
    arrays = {}
    with open(path, "rb") as file:
        for name, stored in sorted(header.tensors.items()):
            file.seek(header.length + stored.begin)
            arrays[name] = _read_array(file, stored)
    seal = metadata.pop(SEAL, None)
    if seal is None:
        # A seal under another name is one whose name has changed.
        seal = next((value for value in metadata.values() if DIGEST.fullmatch(value)), None)
    if seal is not None and seal != make_seal(arrays, metadata):
        raise ValueError("it has changed since it was written")
    return arrays, metadata


def _read_array(file: BinaryIO, stored: StoredTensor) -> np.ndarray:
    """The array that begins where a file is. ValueError for a type that no run keeps, and where the
    file has become shorter."""
    if stored.dtype not in TYPES:
        raise ValueError(f"it holds values of the type {stored.dtype}")
    found = np.fromfile(file, TYPES[stored.dtype], math.prod(stored.shape))
    return found.reshape(stored.shape)


def make_seal(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes, values and texts, in hexadecimal."""
    described = [[name, str(a.dtype), list(a.shape)] for name, a in sorted(arrays.items())]
    found = hashlib.sha256(json.dumps([described, sorted(metadata.items())]).encode())
    for _, array in sorted(arrays.items()):
        found.update(np.ascontiguousarray(array).data if array.size else b"")
    return found.hexdigest()
