"""In pages of which size the system gives memory. Imports no torch: it has to be said before torch
allocates anything."""

import os

# torch reads it once: whether tensors of 2 MiB or more ask for the system's huge pages
# (c10/core/alignment.h and alloc_cpu.cpp, https://github.com/pytorch/pytorch/pull/107697).
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def use_huge_pages() -> None:
    """Have large tensors lie in pages of 2 MiB where the system has them to give; what the user has
    set stays. The processes that this one starts do the same.

    Freed tensors of that size go straight back to the system (`return_freed_tensors`), so each new
    one is given page by page again: with pages of 4 KiB a block took an eighth more of the
    processor's time in float32, and nearly a third more in bfloat16.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
