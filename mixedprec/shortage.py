"""What the machine lacks or denies, told as an error that a user can mend: memory, room on the
disk, files that may not be touched. Libraries report each in words of their own."""

import errno
import os
import re

from mixedprec.errors import InputError
from mixedprec.files import FULL

# torch, on CPU and CUDA; C++; the system, through the loader of shared objects and through Rust.
OUT_OF_MEMORY = re.compile(
    r"MemoryError|can't allocate memory|not enough memory|out of memory|bad_alloc"
    r"|Cannot allocate memory|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
AGAIN = "run the same command again: it goes on from here"


def explain_shortage(error: BaseException) -> InputError | None:
    """The InputError that says what `error` comes to where the machine is at fault; None where it
    is not. A closed pipe is nobody's fault."""
    if isinstance(error, InputError):
        return error
    if _is_out_of_memory(error):
        return InputError(
            f"there is not enough memory ({_first_line(error)})",
            f"give a smaller --max-memory or free some memory, and {AGAIN}",
        )
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError) or not error.errno:
        return None
    where = os.fsdecode(error.filename) if error.filename else "a file"
    if error.errno in FULL:
        return InputError(f"the disk is full while writing {where}", f"free some space and {AGAIN}")
    reason = error.strerror or os.strerror(error.errno)
    return InputError(f"{where} cannot be used ({reason})", f"mend that and {AGAIN}")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, Exception) and bool(OUT_OF_MEMORY.search(str(error)))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
