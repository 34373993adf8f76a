"""What a request will take, worked out by the command itself in a process of its own.

One at a time, for whoever asked last: a plan opens the model and measures the machine, which takes
seconds, and two at once would measure each other.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import IO, Any

from awqscope.mixedprec.files.untrusted import parse_json

KEPT = 20
PATIENCE = 600.0


@dataclass(frozen=True)
class Planned:
    """How far a plan is. state: running, done (`result` is what --plan --json printed) or failed
    (`log` says why)."""

    state: str
    result: Mapping[str, Any] | None = None
    log: str = ""


@dataclass(frozen=True)
class _Work:
    """A process that works a plan out. said, printed: its stderr and stdout."""

    command: tuple[str, ...]
    process: "subprocess.Popen[bytes]"
    said: IO[bytes]
    printed: IO[bytes]
    began: float


class Plans:
    """Plans of commands, each worked out once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[tuple[str, ...], Planned] = {}
        self._work: _Work | None = None

    def ask(self, command: Sequence[str]) -> Planned:
        """The plan of a command as far as it is. It is begun if it is not known; another that is
        being worked out is dropped for it."""
        wanted = tuple(command)
        with self._lock:
            self._collect()
            if wanted in self._known:
                # What failed may have been mended meanwhile.
                if self._known[wanted].state == "done":
                    return self._known[wanted]
                del self._known[wanted]
            if self._work is None or self._work.command != wanted:
                self._drop()
                try:
                    self._work = _begin(wanted)
                except OSError as error:
                    return Planned("failed", log=f"awqscope: it cannot be started ({error})")
            return Planned("running")

    def look(self, command: Sequence[str]) -> Planned | None:
        """The plan of a command as far as it is; None for one not begun, or dropped."""
        wanted = tuple(command)
        with self._lock:
            self._collect()
            if self._work is not None and self._work.command == wanted:
                return Planned("running")
            return self._known.get(wanted)

    def close(self) -> None:
        """End the process that works a plan out, if any: its result will not be asked for."""
        with self._lock:
            self._drop()

    def _collect(self) -> None:
        """Keep what the process has found, once it has."""
        work = self._work
        if work is None:
            return
        if work.process.poll() is None:
            if time.monotonic() - work.began > PATIENCE:
                self._drop()
            return
        self._work = None
        while len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[work.command] = _read(work)

    def _drop(self) -> None:
        """End the process that works a plan out, if there is one."""
        work, self._work = self._work, None
        if work is not None:
            # Its workers too, where it has any.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(work.process.pid, signal.SIGKILL)
            work.process.wait()
            work.said.close()
            work.printed.close()


def _begin(command: tuple[str, ...]) -> _Work:
    with contextlib.ExitStack() as opened:
        said, printed = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=said, start_new_session=True
        )
        opened.pop_all()
    return _Work(command, process, said, printed, time.monotonic())


def _read(work: _Work) -> Planned:
    """The result of a process that has ended."""
    with work.said, work.printed:
        work.said.seek(0)
        work.printed.seek(0)
        log = work.said.read().decode("utf-8", errors="replace")
        try:
            result = parse_json(work.printed.read().decode("utf-8"))
        except ValueError:
            result = None
    if work.process.returncode == 0 and isinstance(result, dict):
        return Planned("done", result)
    return Planned("failed", log=log)
