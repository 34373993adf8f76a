"""Arrays on disk that show when a bit of them has changed: the file's metadata hold their SHA-256.

A damaged safetensors file is often still a valid one. Files without a seal, of earlier versions,
are taken as they are.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from awqscope.mixedprec.files.atomic import claim_memory
from awqscope.mixedprec.files.header import read_header

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
    metadata = dict(read_header(path).metadata)
    try:
        arrays = load_file(path)
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    seal = metadata.pop(SEAL, None)
    if seal is None:
        # A seal under another name is one whose name has changed.
        seal = next((value for value in metadata.values() if DIGEST.fullmatch(value)), None)
    if seal is not None and seal != make_seal(arrays, metadata):
        raise ValueError("it has changed since it was written")
    return arrays, metadata


def make_seal(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes, values and texts, in hexadecimal."""
    described = [[name, str(a.dtype), list(a.shape)] for name, a in sorted(arrays.items())]
    found = hashlib.sha256(json.dumps([described, sorted(metadata.items())]).encode())
    for _, array in sorted(arrays.items()):
        found.update(np.ascontiguousarray(array).data if array.size else b"")
    return found.hexdigest()
