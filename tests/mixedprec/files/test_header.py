"""Headers of safetensors files: what the library writes is taken, what lies is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from awqscope.mixedprec.files.header import parse_header, read_header

GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def refuse(entries: Any, room: int, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        parse_header(json.dumps(entries).encode(), room)


def test_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {
        "a": torch.ones(2, 3, dtype=torch.bfloat16),
        "b": torch.zeros(0, 7),
        "c": torch.tensor(3, dtype=torch.int64),
        "d": torch.ones(5, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"format": "pt"}
    found = {name: (t.dtype, t.shape, t.size) for name, t in header.tensors.items()}
    assert found == {
        "a": ("BF16", (2, 3), 12),
        "b": ("F32", (0, 7), 0),
        "c": ("I64", (), 8),
        "d": ("BOOL", (5,), 5),
    }


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"dtype": "F99"}, "unknown type 'F99'"),
        ({"dtype": ["F32"]}, "unknown type"),
        ({"shape": [2, -3]}, "no usable shape"),
        ({"shape": [2, 3.0]}, "no usable shape"),
        ({"shape": [True, 6]}, "no usable shape"),
        ({"shape": [1] * 9}, "no usable shape"),
        ({"shape": [2**62, 2**62]}, "type and shape mean more"),
        ({"shape": [2, 4]}, "24 bytes where type and shape mean 32"),
        ({"data_offsets": [24, 0]}, "no usable place"),
        ({"data_offsets": [0, 24, 48]}, "no usable place"),
        ({"data_offsets": [0, 2**64]}, "no usable place"),
        ({"data_offsets": [8, 32]}, "a hole or overlap"),
        ({"more": 1}, "not described by"),
    ],
)
def test_entries_that_lie(changes: dict[str, Any], wanted: str) -> None:
    refuse({"a": GOOD | changes}, 24, wanted)


def test_files_that_lie_as_a_whole() -> None:
    second = GOOD | {"data_offsets": [24, 48]}
    assert set(parse_header(json.dumps({"b": second, "a": GOOD}).encode(), 48).tensors) == {
        "a",
        "b",
    }
    refuse({"a": GOOD, "b": GOOD}, 24, "a hole or overlap at byte 0")
    refuse({"a": GOOD, "b": second}, 60, "take 48 bytes where the file has 60")
    refuse({"a": GOOD, "b": second}, 30, "take 48 bytes where the file has 30")
    refuse({"a" * 2000: GOOD}, 24, "name has 2,000 characters")
    refuse({"a": GOOD, "__metadata__": {"x": 1}}, 24, "metadata are no strings")
    refuse([1], 0, "no JSON object")
    twice = '{"a": %s, "a": %s}' % ((json.dumps(GOOD),) * 2)
    with pytest.raises(ValueError, match="is there twice"):
        parse_header(twice.encode(), 24)


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        (2**64 - 1, "ends before its header"),
        (10**9, "ends before its header"),
        (40 * 2**20, "header claims 41,943,040 bytes"),
    ],
)
def test_headers_that_claim_too_much(length: int, wanted: str, tmp_path: Path) -> None:
    """A sparse file: nothing of what it claims is taken into memory."""
    content = length.to_bytes(8, "little") + save({"a": torch.ones(3)})[8:]
    (tmp_path / "x").write_bytes(content)
    with open(tmp_path / "x", "rb+") as file:
        file.truncate(50 * 2**20)
    with pytest.raises(ValueError, match=wanted):
        read_header(tmp_path / "x")


def test_files_that_are_too_short(tmp_path: Path) -> None:
    for content in (b"", b"\x02", (2).to_bytes(8, "little") + b"{"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="ends before its header"):
            read_header(tmp_path / "x")
