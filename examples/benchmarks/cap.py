"""A hard cap on the memory of a command and all that it starts: a cgroup of its own, without swap.

The kernel counts whatever its processes hold of private memory, and pages of files that they were
the first to read; those it takes back by itself. What is above the cap then is killed.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# The files of a cgroup, by its version: the limit, the limit of swap, the peak, kills so far.
FILES = {
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes"),
    2: ("memory.max", "memory.swap.max", "memory.peak"),
}


class NoCapError(Exception):
    """This machine lets us make no memory cgroup."""


@dataclass(frozen=True)
class Cap:
    """A cgroup. `folder` holds its files."""

    folder: Path
    version: int

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command, carried out inside."""
        join = 'echo $$ > "$0" && exec "$@"'
        return ["/bin/sh", "-c", join, str(self.folder / "cgroup.procs"), *command]

    def peak(self) -> int:
        """The most bytes that were charged at once, files' pages included."""
        return int((self.folder / FILES[self.version][2]).read_text())

    def times_full(self) -> int:
        """How often a process had to wait for pages to be taken back."""
        if self.version == 1:
            return int((self.folder / "memory.failcnt").read_text())
        events = dict(map(str.split, (self.folder / "memory.events").read_text().splitlines()))
        return int(events["max"])


def find_own() -> tuple[Path, int]:
    """The memory cgroup of this process, and its version."""
    for line in OWN.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return ROOT / "memory" / path.lstrip("/"), 1
    for line in OWN.read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            return ROOT / line[3:].lstrip("/"), 2
    raise NoCapError("there is no memory cgroup")


@contextlib.contextmanager
def open_cap(limit: int) -> Iterator[Cap]:
    """A cgroup below our own that may hold `limit` bytes. NoCapError where none can be made."""
    own, version = find_own()
    cap = Cap(own / f"awqscope-{os.getpid()}", version)
    try:
        if version == 2 and "memory" not in (own / "cgroup.subtree_control").read_text().split():
            (own / "cgroup.subtree_control").write_text("+memory")
        cap.folder.mkdir()
    except OSError as error:
        raise NoCapError(f"no cgroup can be made below {own} ({error.strerror})") from error
    try:
        least, swap, _ = FILES[version]
        try:
            (cap.folder / least).write_text(str(limit))
            # Version 1 counts memory and swap together.
            if (cap.folder / swap).exists():
                (cap.folder / swap).write_text(str(limit if version == 1 else 0))
        except OSError as error:
            raise NoCapError(f"{cap.folder} takes no limit ({error.strerror})") from error
        yield cap
    finally:
        _remove(cap.folder)


def _remove(folder: Path) -> None:
    """Take a cgroup away, and first what still runs in it."""
    for _ in range(100):
        for pid in map(int, (folder / "cgroup.procs").read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)
