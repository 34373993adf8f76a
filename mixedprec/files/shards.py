"""Safetensors files written a tensor at a time: a header needs names, types and shapes only, so
that no more than one tensor is in memory however large the file is."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.header import BITS_OF_TYPE, LENGTH_BYTES, METADATA

# What the hub's own client writes at most.
SHARD_BYTES = 5 * 10**9
ALIGNMENT = 8
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written. dtype: safetensors' name of its type."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return prod(self.shape) * BITS_OF_TYPE[self.dtype] // 8


def split_shards(
    tensors: Mapping[str, Planned], most: int = SHARD_BYTES
) -> list[dict[str, Planned]]:
    """The tensors of each file, in order: as many as fit into `most` bytes, a larger one alone."""
    shards: list[dict[str, Planned]] = [{}]
    taken = 0
    for name, tensor in tensors.items():
        if shards[-1] and taken + tensor.size > most:
            shards.append({})
            taken = 0
        shards[-1][name] = tensor
        taken += tensor.size
    return shards


def name_shards(count: int) -> list[str]:
    """The files' names, as transformers looks for them."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def write_header(tensors: Mapping[str, Planned]) -> bytes:
    """What a file of these tensors begins with."""
    header: dict[str, object] = {METADATA: {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.size
        entry = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
        header[name] = entry
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def write_shards(
    folder: Path,
    tensors: Mapping[str, Planned],
    read: Callable[[str], memoryview],
    most: int = SHARD_BYTES,
) -> Iterator[str]:
    """Write tensors into files of at most `most` bytes each, with an index where there are several;
    yields the name of each that has been written. read: the bytes of a tensor."""
    shards = split_shards(tensors, most)
    names = name_shards(len(shards))
    for path, shard in zip(names, shards, strict=True):
        with open(folder / path, "wb") as file:
            file.write(write_header(shard))
            for name, tensor in shard.items():
                values = read(name)
                if values.nbytes != tensor.size:
                    raise RuntimeError(f"{name} takes {values.nbytes} bytes, not {tensor.size}")
                file.write(values)
                yield name
            file.flush()
            os.fsync(file.fileno())
    if len(shards) > 1:
        total = sum(tensor.size for tensor in tensors.values())
        write_json(folder / INDEX, _make_index(names, shards, total))


def _make_index(
    files: Sequence[str], shards: Sequence[Mapping[str, Planned]], total: int
) -> dict[str, object]:
    placed = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    return {"metadata": {"total_size": total}, "weight_map": placed}
