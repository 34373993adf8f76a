"""Streams of activations, in memory or in files: what flows through the blocks when there is more
of it than a machine holds.

A stream is float32 [windows, length, channels]. It is read and written a few windows at a time,
always the same ones, so that where it is kept changes no bit of what is computed from it. A file is
read and written explicitly, never mapped: the process holds what it works on. It has no name, so
that the system takes it back however the process ends.
"""

import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from awqscope.mixedprec.files.atomic import replace_file, report_full_disk

CPU = torch.device("cpu")
TOKENS_A_BATCH = 256
FLOAT_BYTES = 4


def batch_size(length: int) -> int:
    """Windows in one forward. Fixed for a run, so that equal streams stay equal to the last bit."""
    return max(1, TOKENS_A_BATCH // length)


def list_slices(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` of `count` things."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Stream(Protocol):
    """float32 activations [windows, length, channels]. Reading may give a view: not to be changed.
    InputError where a disk is full."""

    shape: tuple[int, int, int]

    def read(self, windows: slice, tokens: slice = slice(None)) -> Tensor:
        """These windows' activations at `tokens`, on the device that keeps them; of files, on the
        CPU."""
        ...

    def gather(self, windows: Tensor) -> Tensor:
        """The windows of these numbers."""
        ...

    def write(self, windows: slice, values: Tensor, tokens: slice = slice(None)) -> None:
        """Replace them with `values` from any device."""
        ...

    def reshape(self, windows: int, length: int) -> "Stream":
        """The same activations cut into other windows; what is written to one is in both."""
        ...


class HeldStream:
    """A stream that is a tensor."""

    def __init__(self, values: Tensor):
        self.values = values
        windows, length, channels = values.shape
        self.shape = (windows, length, channels)

    def read(self, windows: slice, tokens: slice = slice(None)) -> Tensor:
        return self.values[windows, tokens]

    def gather(self, windows: Tensor) -> Tensor:
        return self.values[windows.to(self.values.device)]

    def write(self, windows: slice, values: Tensor, tokens: slice = slice(None)) -> None:
        self.values[windows, tokens] = values

    def reshape(self, windows: int, length: int) -> "HeldStream":
        return HeldStream(self.values.view(windows, length, -1))


class _File:
    """A file without a name, closed when nothing refers to it."""

    def __init__(self, folder: Path):
        self.folder = folder
        with report_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def read_into(self, values: Tensor, start: int) -> None:
        """Fill a contiguous CPU tensor from byte `start` on."""
        left = values.numpy().data.cast("B")
        while left:
            done = os.preadv(self._file.fileno(), [left], start)
            if not done:
                raise EOFError("a stream was read before it was written")
            left, start = left[done:], start + done

    def write_from(self, values: Tensor, start: int) -> None:
        """Write a contiguous CPU tensor at byte `start`."""
        left = values.numpy().data.cast("B")
        with report_full_disk(self.folder):
            while left:
                done = os.pwrite(self._file.fileno(), left, start)
                left, start = left[done:], start + done


class SpilledStream:
    """A stream that is a file."""

    def __init__(self, file: _File, shape: tuple[int, int, int]):
        self._file = file
        self.shape = shape
        self._token_bytes = shape[2] * FLOAT_BYTES

    def _start(self, window: int, token: int) -> int:
        return (window * self.shape[1] + token) * self._token_bytes

    def read(self, windows: slice, tokens: slice = slice(None)) -> Tensor:
        first, end, _ = windows.indices(self.shape[0])
        from_token, to_token, _ = tokens.indices(self.shape[1])
        values = torch.empty(end - first, to_token - from_token, self.shape[2])
        if to_token - from_token == self.shape[1]:
            self._file.read_into(values, self._start(first, 0))
            return values
        for row, window in enumerate(range(first, end)):
            self._file.read_into(values[row], self._start(window, from_token))
        return values

    def gather(self, windows: Tensor) -> Tensor:
        values = torch.empty(len(windows), *self.shape[1:])
        for row, window in enumerate(windows.tolist()):
            self._file.read_into(values[row], self._start(window, 0))
        return values

    def write(self, windows: slice, values: Tensor, tokens: slice = slice(None)) -> None:
        first, end, _ = windows.indices(self.shape[0])
        from_token, to_token, _ = tokens.indices(self.shape[1])
        stored = values.detach().to(CPU, torch.float32).contiguous()
        if to_token - from_token == self.shape[1]:
            self._file.write_from(stored, self._start(first, 0))
            return
        for row, window in enumerate(range(first, end)):
            self._file.write_from(stored[row], self._start(window, from_token))

    def reshape(self, windows: int, length: int) -> "SpilledStream":
        return SpilledStream(self._file, (windows, length, self.shape[2]))


@dataclass
class _Tier:
    """Memory of one device that streams may take. room: bytes left; None without a limit."""

    device: torch.device
    room: int | None

    def take(self, size: int) -> bool:
        if self.room is not None:
            if size > self.room:
                return False
            self.room -= size
        return True

    def give_back(self, size: int) -> None:
        if self.room is not None:
            self.room += size


class StreamSpace:
    """Where streams are kept: in memory while there is room, then in files of a folder.

    tiers: (device, bytes or None for any amount), tried in order. folder: None where nothing may be
    spilled.
    """

    def __init__(
        self,
        tiers: Sequence[tuple[torch.device, int | None]] = ((CPU, None),),
        folder: Path | None = None,
    ):
        self._tiers = [_Tier(device, room) for device, room in tiers]
        self._folder = folder
        self.spilled_bytes = 0

    def empty(self, windows: int, length: int, channels: int) -> Stream:
        """A stream whose values are yet to be written."""
        size = windows * length * channels * FLOAT_BYTES
        for tier in self._tiers:
            if tier.take(size):
                values = torch.empty(windows, length, channels, device=tier.device)
                # A view of it keeps the storage alive, and with it the room taken.
                weakref.finalize(values.untyped_storage(), tier.give_back, size)
                return HeldStream(values)
        if self._folder is None:
            raise MemoryError(f"no room for a stream of {size} bytes")
        self.spilled_bytes += size
        return SpilledStream(_File(self._folder), (windows, length, channels))

    def copy(self, stream: Stream) -> Stream:
        """A stream of its own with the same values."""
        twin = self.empty(*stream.shape)
        for part in list_batches(stream):
            twin.write(part, stream.read(part))
        return twin


def save_stream(path: Path, stream: Stream) -> None:
    """Write a stream to a file for another process: its float32 values and nothing else."""
    with replace_file(path) as temporary, open(temporary, "wb") as file:
        for part in list_batches(stream):
            file.write(stream.read(part).to(CPU).contiguous().numpy().data)


def load_stream(path: Path, shape: tuple[int, int, int], space: StreamSpace) -> Stream:
    """What `save_stream` wrote, as a stream of its own in `space`. EOFError for a file that is too
    short."""
    stream = space.empty(*shape)
    with open(path, "rb") as file:
        for part in list_batches(stream):
            values = torch.empty(part.stop - part.start, *shape[1:])
            if file.readinto(values.numpy().data.cast("B")) != values.nbytes:
                raise EOFError(f"{path} is too short for a stream of {shape}")
            stream.write(part, values)
    return stream


def in_memory() -> StreamSpace:
    """All the memory there is, and no files."""
    return StreamSpace()


def as_stream(values: Stream | Tensor) -> Stream:
    """A tensor [windows, length, channels] as a stream that shares its memory; a stream itself."""
    return HeldStream(values) if isinstance(values, Tensor) else values


def list_batches(stream: Stream) -> list[slice]:
    """The windows of each forward."""
    windows, length, _ = stream.shape
    return list_slices(windows, batch_size(length))


def are_equal(one: Stream, other: Stream) -> bool:
    """Whether two streams of one shape are equal to the last bit."""
    return all(
        torch.equal(one.read(part).cpu(), other.read(part).cpu()) for part in list_batches(one)
    )
