"""Locks on files and folders: which process works on what is in them.

The system gives a lock back however the process that holds it ends, so that no lock outlives its
holder. Of the libraries for this, filelock does not say who holds one, which users are told here.
"""

import contextlib
import fcntl
import time
from pathlib import Path
from typing import IO, Any

# Whoever asks whether a file is locked locks it for a moment.
TRIES, PAUSE = 5, 0.02


def take_lock(file: IO[Any] | int) -> None:
    """Lock an open file or folder for this process alone, until it is closed. BlockingIOError if
    another process holds it for longer than `is_locked` does."""
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(PAUSE)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file; none does where it cannot be read."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
