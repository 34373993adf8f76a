"""What the machine lacks or denies, as an error that a user can mend: memory, room on the
disk, files that may not be touched. Libraries report each in words of their own."""

import errno
import os
import re

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import FULL

# torch, on CPU and CUDA; C++; the system, through the loader of shared objects and through Rust.
OUT_OF_MEMORY = re.compile(
    r"MemoryError|can't allocate memory|not enough memory|out of memory|bad_alloc"
    r"|Cannot allocate memory|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
# Ways in which the system denies a file. A missing file is none: its reader should have said so.
DENIED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
)
AGAIN = "run the same command again"


def explain_shortage(error: BaseException) -> InputError | None:
    """The InputError to show instead of `error` where the machine is at fault: it lacks memory or
    room on the disk, or denies a file. None where it is not. An InputError is returned as it is."""
    if isinstance(error, InputError):
        return error
    if _is_out_of_memory(error):
        return InputError(
            f"there is not enough memory ({_first_line(error)})",
            f"give a smaller --max-memory or free some memory, and {AGAIN}",
        )
    if not isinstance(error, OSError):
        return None
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    if error.errno in FULL:
        return InputError(f"the disk is full while writing {where}", f"free some space and {AGAIN}")
    if error.errno == errno.EEXIST:
        return InputError(f"{where} is in the way", f"move it elsewhere and {AGAIN}")
    if error.errno not in DENIED:
        return None
    reason = error.strerror or os.strerror(error.errno)
    return InputError(f"{where} cannot be used ({reason})", f"mend that and {AGAIN}")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, Exception) and bool(OUT_OF_MEMORY.search(str(error)))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
