"""The header of a safetensors file, read strictly before any library opens the file.

Eight bytes, little-endian, give the length of a JSON object: tensor name -> `dtype`, `shape` and
`data_offsets` [begin, end) into the rest of the file; `__metadata__` maps strings to strings
(https://github.com/huggingface/safetensors, README). Everything that the file claims is
checked against its size, so that no claim makes a reader allocate more than the file holds.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.mixedprec.files.untrusted import open_at_once, parse_json

# A file of 50,000 tensors with long names has some 10 MB; the library itself allows 100.
MOST_HEADER_BYTES = 32 * 2**20
# Before the header stands how long it is.
LENGTH_BYTES = 8
# Names and shapes of a tensor take some 150 bytes.
MOST_NAME = 1024
MOST_DIMENSIONS = 8
METADATA = "__metadata__"
# Types of parameters that are stored as they are used.
FLOATS = {"F16", "BF16", "F32", "F64"}
BITS_OF_TYPE: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of a tensor: safetensors' name of its type, shape, and where in the file
    its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """tensors: by name, their places counted from the end of the header. metadata: as stored.
    length: bytes of the file before the first tensor's."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    length: int


def read_header(path: Path) -> Header:
    """The header of the file at `path`. OSError where it cannot be read; ValueError, saying what is
    wrong, unless the tensors tile exactly the bytes that are there."""
    with open(path, "rb", opener=open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if status.st_size < LENGTH_BYTES or length > status.st_size - LENGTH_BYTES:
            raise ValueError("it ends before its header does")
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"its header claims {length:,} bytes")
        text = file.read(length)
    return parse_header(text, status.st_size - LENGTH_BYTES - length)


def parse_header(text: bytes, room: int) -> Header:
    """The header that is written as `text`, of a file with `room` bytes behind it. ValueError,
    saying what is wrong, unless the tensors tile exactly these bytes."""
    entries = parse_json(text.decode("utf-8"), unique=True)
    if not isinstance(entries, dict) or not text.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are no strings")
    tensors = {name: _read_entry(name, entry) for name, entry in entries.items()}
    at = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != at:
            raise ValueError(f"its tensors leave a hole or overlap at byte {min(at, tensor.begin)}")
        at = tensor.end
    if at != room:
        raise ValueError(f"its tensors take {at:,} bytes where the file has {room:,}")
    return Header(tensors, metadata, LENGTH_BYTES + len(text))


def _read_entry(name: str, entry: Any) -> StoredTensor:
    if not name or len(name) > MOST_NAME:
        raise ValueError(f"a tensor's name has {len(name):,} characters")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its tensor {name!r} is not described by type, shape and place")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS_OF_TYPE:
        raise ValueError(f"its tensor {name!r} is of the unknown type {str(dtype)[:40]!r}")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"its tensor {name!r} has no usable shape")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"its tensor {name!r} has no usable place")
    count = BITS_OF_TYPE[dtype]
    for length in shape:
        count *= length
    tensor = StoredTensor(dtype, tuple(shape), *offsets)
    if count != 8 * tensor.size:
        meant = f"{count // 8:,}" if count < 2**67 else "more"
        raise ValueError(
            f"its tensor {name!r} has {tensor.size:,} bytes where type and shape mean {meant}"
        )
    return tensor


def _are_sizes(values: Any) -> bool:
    """Whether `values` is a list of numbers that can count bytes."""
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**63 for v in values
    )
