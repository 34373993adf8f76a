"""A run, deleted: its directory and nothing else.

Links are removed and not followed. The record goes last, so that a deletion that was interrupted
leaves a run which can be deleted again.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.locks import is_locked, take_lock

RECORD, LOCK = "run.json", ".lock"
# A directory with one of these holds more than a run.
OTHERS = {RECORD: "another run", ".git": "a repository"}


@dataclass(frozen=True)
class Deletion:
    """What deleting a run takes away: the entries of its directory with their bytes, links counted
    as nothing, and how many files there are."""

    path: Path
    entries: tuple[tuple[str, int], ...]
    files: int

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.entries)


def plan_deletion(path: Path) -> Deletion:
    """What deleting the run at `path` would take away. InputError for anything but the directory of
    a run, for one that a process works on, and for one that holds another run or a repository."""
    if path.is_symlink():
        raise InputError(f"{path} is a link", f"give the run that it leads to, {path.resolve()}")
    run = RunDirectory(path)
    if not run.exists():
        run.read()
    path = path.resolve()
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be removed", f"{path.parent} does not let you")
    _check_free(path)
    entries, files = [], 0
    for entry in sorted(os.scandir(path), key=lambda found: found.name):
        size = 0
        for each in _walk(Path(entry.path)):
            what = OTHERS.get(each.name)
            if what is not None and each != path / RECORD:
                raise InputError(f"{path} holds {what} ({each})", "move that away first")
            if each.is_symlink() or not each.is_dir():
                size, files = size + each.lstat().st_size * (not each.is_symlink()), files + 1
        entries.append((entry.name, size))
    return Deletion(path, tuple(entries), files)


def _walk(path: Path) -> Iterator[Path]:
    """A path and all that is below it, links not followed."""
    yield path
    if path.is_dir() and not path.is_symlink():
        for root, folders, files in os.walk(path):
            yield from (Path(root, name) for name in (*folders, *files))


def _check_free(path: Path, *, but: Path | None = None) -> None:
    """Raise InputError where a process works on the run at `path`, or on a study or anything else
    that is kept in it: each holds a lock or its log. but: a lock that is ours."""
    for pattern in ("*.lock", "*.log"):
        for found in path.rglob(pattern):
            if found != but and is_locked(found):
                holder = RunDirectory(path).holder() if found == path / LOCK else None
                who = "a process" if holder is None else f"process {holder}"
                raise InputError(f"{who} works on {path}", "wait for it, or stop it")


def delete_run(deletion: Deletion) -> None:
    """Carry out a deletion. InputError where a process has begun to work on the run since, and
    where something cannot be removed: what is left is a run still."""
    path = deletion.path
    try:
        with open(path / LOCK, "a") as file:
            take_lock(file)
            _check_free(path, but=path / LOCK)
            for entry in os.scandir(path):
                if entry.name not in (RECORD, LOCK):
                    _remove(entry)
            (path / RECORD).unlink()
            (path / LOCK).unlink()
        path.rmdir()
    except BlockingIOError as error:
        raise InputError(f"a process works on {path}", "wait for it, or stop it") from error
    except OSError as error:
        where = os.fsdecode(error.filename or path)
        raise InputError(f"{where} cannot be removed ({error.strerror})", "check its rights") from (
            error
        )


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)
