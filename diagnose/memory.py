"""Keeping the process as small as what it holds."""

import ctypes

# glibc's M_MMAP_THRESHOLD. Left alone, the threshold grows to 32 MiB with use, and freed weights
# stay in a fragmented heap: twice the memory on a model of half a billion parameters.
MMAP_THRESHOLD = -3
MAPPED_FROM_BYTES = 2 * 2**20


def return_freed_tensors() -> None:
    """Make the C library hand every freed tensor of 2 MiB or more straight back to the system.

    Where it is not glibc, nothing happens.
    """
    try:
        ctypes.CDLL("libc.so.6").mallopt(MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    except (OSError, AttributeError):
        return
