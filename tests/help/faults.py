"""A process that forks runs with a fault in them: what a run imports is imported once, not once a
fault.

Each run is the real command line in a process of its own, with nothing computed before the fork.
Its proof is forked too, from the same state, where a user's run starts a fresh interpreter.
Signals, limits, files and exit codes are the system's own.
"""

import contextlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.help.root import ROOT

# For what hangs: nothing else comes near it, on however busy a machine.
TIMEOUT_S = 1200
EARLY = (
    "awqscope.diagnose.trials.contest",
    "awqscope.diagnose.explain.explain",
    "awqscope.diagnose.stages.pipeline",
)
# What a run and its proof import when they come to it: half the time of those of a tiny model.
LATE = (
    "awqscope.app.cli",
    "compressed_tensors",
    "awqscope.diagnose.proof.prove",
    "pydantic",
    "scipy.io",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the signal; what it said."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return (self.err.strip().splitlines() or [""])[-1]


class ForkServer:
    """Runs commands, one after another, each in a fork. lazy: what a command imports late, it
    imports itself, as a user's does: importing, too, takes memory."""

    def __init__(self, lazy: bool = False) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.help.faults", *(["lazy"] if lazy else [])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Sequence[object], fault: dict[str, Any] | None = None) -> Ended:
        """Carry out `awqscope arguments` with a fault (see `inject`)."""
        assert self._process.stdin and self._process.stdout
        request = {"arguments": [str(part) for part in arguments], "fault": fault}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve(lazy: bool) -> None:
    """Answer requests, one a line, with how they ended, one a line."""
    import gc
    import os
    import signal

    import awqscope.diagnose.plan.room

    for name in EARLY if lazy else (*EARLY, *LATE):
        importlib.import_module(name)
    # What is imported is no garbage: collecting in every fork would look at all of it.
    gc.freeze()
    # How fast the machine is decides nothing but the time that a plan foretells.
    awqscope.diagnose.plan.room.PROBED_SECONDS = 1e-9
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        ended = _fork(partial(_command, request))
        answers.write(json.dumps(ended) + "\n")
        answers.flush()
    # What was imported says much of how it is taken down.
    os._exit(0)


def _fork(action: Callable[[], int], stdin: int | None = None) -> tuple[int, str, str]:
    """Carry out `action` in a child; its exit code, or minus the signal that ended it, and what it
    said, through pipes, which no limit on files touches. A child that takes too long is killed."""
    import os
    import selectors
    import signal
    import time
    import traceback

    pipes = [os.pipe() for _ in range(2)]
    child = os.fork()
    if child == 0:
        code = 70
        if stdin is None:
            os.setpgid(0, 0)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, (_, theirs) in enumerate(pipes, 1):
                os.dup2(theirs, number)
            if stdin is not None:
                os.dup2(stdin, 0)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            code = action()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
    said = {ours: b"" for ours, _ in pipes}
    ends = time.monotonic() + TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for ours, theirs in pipes:
            os.close(theirs)
            selector.register(ours, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(timeout=1):
                content = os.read(key.fd, 65536)
                said[key.fd] += content
                if not content:
                    selector.unregister(key.fd)
                    os.close(key.fd)
            if time.monotonic() > ends:
                # With its proof, which holds the pipes open too.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    out, err = (text.decode(errors="replace") for text in said.values())
    return os.waitstatus_to_exitcode(status), out, err


def _command(request: dict[str, Any]) -> int:
    from types import SimpleNamespace

    import awqscope.diagnose.stages.repair
    from awqscope.app.cli import app

    fault = request["fault"]
    awqscope.diagnose.stages.repair.subprocess = SimpleNamespace(  # type: ignore[assignment]
        run=lambda command, **kwargs: _prove(command, kwargs.get("stdin"), fault)
    )
    if fault and fault.get("in") != "proof":
        inject(fault)
    app(args=request["arguments"])
    return 0


def _prove(command: Sequence[str], stdin: int | None, fault: dict[str, Any] | None) -> Any:
    """`subprocess.run` of a proof, by a fork."""
    import awqscope.diagnose.proof.prove

    def prove() -> int:
        sys.argv = ["proof", *command[command.index("awqscope.diagnose.proof.prove") + 1 :]]
        if fault and fault.get("in") == "proof":
            act(fault)
        awqscope.diagnose.proof.prove.main()
        return 0

    return subprocess.CompletedProcess(command, *_fork(prove, stdin))


def inject(fault: dict[str, Any]) -> None:
    """Let `act(fault)` happen at the event number `event` (from 1) of the stage `stage`, as the
    run's progress has them, before it is written; `event` 0 is before anything."""
    from awqscope.diagnose.runs.directory import ProgressLog

    if not fault["event"]:
        act(fault)
        return
    seen = 0
    plain = ProgressLog.__call__

    def counted(log: ProgressLog, stage: str, done: int, total: int) -> None:
        nonlocal seen
        seen += stage == fault["stage"]
        if stage == fault["stage"] and seen == fault["event"]:
            act(fault)
        plain(log, stage, done, total)

    ProgressLog.__call__ = counted  # type: ignore[method-assign]


def act(fault: dict[str, Any]) -> None:
    """Do what a fault does. The table of kinds is this function's dispatch."""
    ACTIONS[fault["do"]](**fault.get("with", {}))


def _signal(number: int) -> None:
    import os

    os.kill(os.getpid(), number)


def _fill_disk(bytes: int) -> None:
    """A limit on the size of files stands in for a full disk: writes fail part of the way."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))


def _deny_writes(number: int, errno: int) -> None:
    """The `number`-th file from here on, and all after it, fail to reach the disk."""
    import os

    count, plain = 0, os.fsync

    def fsync(file: int) -> None:
        nonlocal count
        count += 1
        if count >= number:
            raise OSError(errno, os.strerror(errno))
        plain(file)

    os.fsync = fsync


def _limit_memory(bytes: int) -> None:
    """No more address space than is in use, and `bytes`."""
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + bytes, used + bytes))


def _take_rights(folder: str) -> None:
    """The directory can be read only, even by root, whose right to write anyway is given up."""
    import ctypes
    import os

    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o555)
    # linux/capability.h: version 3; CAP_DAC_OVERRIDE is bit 1 of the first word.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    data[0] &= ~2
    assert libc.capset(header, data) == 0


def _damage(path: str, how: str) -> None:
    damage(Path(path), how)


def _run_second(arguments: list[str], answer: str) -> None:
    """Another process with the same command, here and now; how it ended goes to a file."""
    from awqscope.app.cli import app

    def second() -> int:
        app(args=arguments)
        return 0

    Path(answer).write_text(json.dumps(_fork(second)), encoding="utf-8")


def damage(path: Path, how: str) -> None:
    """Damage a file: `truncate` to half, `flip` a bit in the middle, `flip end` one in the last
    bytes, `empty`, `remove`, `directory` in its place, or `noise` over all of it."""
    import random
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
        if how != "remove":
            path.write_bytes(b"not a directory")
        return
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "remove":
        return
    if how == "directory":
        path.mkdir()
        return
    if how == "truncate":
        content = content[: len(content) // 2]
    elif how in ("flip", "flip end") and not content:
        content = bytearray(b"\x10")
    elif how in ("flip", "flip end"):
        content[len(content) // 2 if how == "flip" else -min(9, len(content))] ^= 0x10
    elif how == "empty":
        content = bytearray()
    elif how == "noise":
        content = bytearray(random.Random(7).randbytes(len(content)))
    path.write_bytes(content)


ACTIONS = {
    "signal": _signal,
    "fill disk": _fill_disk,
    "deny writes": _deny_writes,
    "limit memory": _limit_memory,
    "take rights": _take_rights,
    "damage": _damage,
    "run second": _run_second,
}

if __name__ == "__main__":
    serve("lazy" in sys.argv)
