"""Files that are either wholly there or not there: everything a run keeps is written this way."""

import contextlib
import errno
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from awqscope.mixedprec.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# More than safetensors asks for at once to write with.
WRITING_BYTES = 16 * 2**20
# Set once this process has written a file: from then on there is something to go on from.
has_written = threading.Event()


@contextlib.contextmanager
def report_full_disk(path: Path) -> Iterator[None]:
    """Turn 'no space left' inside the block into an InputError that names `path`, and what a
    library says of the system's other errors into the OSError that it was."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # safetensors wraps the system's error in its own, with the number in the text.
        wrapped = re.search(r"os error (\d+)", str(error))
        code = int(wrapped[1]) if wrapped else getattr(error, "errno", None)
        if code in FULL:
            raise InputError(
                f"the disk is full while writing {path}",
                "free some space and run the same command again: it resumes",
            ) from error
        if wrapped and code is not None:
            raise OSError(code, os.strerror(code), str(path)) from error
        raise


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes its place, else it is removed. It
    gets the mode of any new file, whatever the library that writes it sets: safetensors makes its
    files readable by their owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with report_full_disk(path):
            mode = _make_anew(temporary)
            yield temporary
            _set_mode(temporary, mode)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            has_written.set()
    finally:
        temporary.unlink(missing_ok=True)


def claim_memory() -> None:
    """Raise MemoryError where there is too little memory for safetensors to write with: it would
    end the process without an error that could be shown."""
    bytearray(WRITING_BYTES)


def _make_anew(path: Path) -> int:
    """Make an empty file, and say what mode it was given."""
    path.unlink(missing_ok=True)
    path.touch()
    return path.stat().st_mode


def _set_mode(path: Path, mode: int) -> None:
    # Not every file system lets a mode be changed, and those give every file the same.
    if path.stat().st_mode != mode:
        path.chmod(mode)


def share_files(folder: Path, pattern: str = "*.safetensors") -> None:
    """Give the files that a library wrote into `folder` the mode of any new file there."""
    probe = folder / f".mode.{os.getpid()}.tmp"
    try:
        mode = _make_anew(probe)
        for path in folder.glob(pattern):
            _set_mode(path, mode)
    finally:
        probe.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left directly in `folder`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
