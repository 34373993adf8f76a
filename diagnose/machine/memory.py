"""How much memory a process holds, and giving back to the system what it has freed."""

import contextlib
import ctypes
import re
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

# glibc's M_MMAP_THRESHOLD. Left alone, the threshold grows to 32 MiB with use, and freed weights
# stay in a fragmented heap: twice the memory on a model of half a billion parameters.
MMAP_THRESHOLD = -3
MAPPED_FROM_BYTES = 2 * 2**20
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def return_freed_tensors() -> None:
    """Make the C library hand every freed tensor of 2 MiB or more straight back to the system.

    Where it is not glibc, nothing happens.
    """
    try:
        ctypes.CDLL("libc.so.6").mallopt(MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    except (OSError, AttributeError):
        return


def return_freed_heap() -> None:
    """Make the C library hand back what is free of its heap, too: tensors of less than 2 MiB leave
    holes between what stays, block after block. Where it is not glibc, nothing happens."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def held_bytes() -> int:
    """What this process holds now, shared libraries and its imports included."""
    return int(psutil.Process().memory_info().rss)


def private_bytes() -> int:
    """What this process holds that is neither shared with others nor mapped from files; all that it
    holds where the system does not tell them apart."""
    held = psutil.Process().memory_info()
    return int(held.rss - getattr(held, "shared", 0))


def peak_bytes() -> int:
    """The most that this process held since `forget_peak`, or its start; what it holds now where
    the system keeps no account of it, which psutil does not read either."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    except OSError:
        return held_bytes()
    return int(found.group(1)) * 1024 if found else held_bytes()


def forget_peak() -> None:
    """Start counting the peak again, the devices' too. Where the system cannot, the peak since the
    start stays."""
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5", encoding="utf-8")
    for number in _used_devices():
        torch.cuda.reset_peak_memory_stats(number)


def device_peak_bytes() -> int:
    """The most that this process held of a CUDA device; 0 where it uses none."""
    return max(map(torch.cuda.max_memory_allocated, _used_devices()), default=0)


def device_free_bytes(devices: Iterable[torch.device]) -> int | None:
    """What is free of the CUDA device among them that has least; None where none is one."""
    free = [torch.cuda.mem_get_info(device)[0] for device in devices if device.type == "cuda"]
    return min(free, default=None)


def _used_devices() -> range:
    """The numbers of the CUDA devices, none as long as this process has not begun to use them."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
