"""Commands as processes of their own, which outlive the page and the server.

A command's output goes to a log whose lock it inherits. The system releases that lock however the
process ends, so that a reader of the log, now or after a restart of the server, knows whether a
process still writes it.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import psutil

from awqscope.app.dashboard.jobs.requests import Request
from awqscope.app.store import read_tail
from awqscope.app.words.numbers import begin_sentence
from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.options.option import list_options
from awqscope.diagnose.runs.resuming import spec_arguments, write_option
from awqscope.diagnose.runs.spec import AnySpec
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.locks import take_lock

TAIL_LINES = 40
# -P: a folder called app where the dashboard was started must not stand in for this package.
PYTHON = (sys.executable, "-P", "-m", "awqscope.app.cli")
# What a run is asked to stop with, in turn. Python drops an interrupt that falls into a destructor,
# and a process begun in the background may ignore them all; a killed run resumes all the same.
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM)
PATIENCE = 5.0
GLANCE = 0.2


def run_command(request: Request, root: Path) -> list[str]:
    """The command that carries out a request, into a directory below `root`."""
    return spec_command(request.to_spec(), root / request.name, request.to_execution())


def plan_command(request: Request, root: Path) -> list[str]:
    """The command that says what a request will take."""
    command = run_command(request, root)
    at = command.index("--")
    return [*command[:at], "--plan", "--json", *command[at:]]


def write_command(command: Sequence[str]) -> str:
    """A command as it is typed."""
    return shlex.join(["awqscope", *command[len(PYTHON) :]])


def spec_command(spec: AnySpec, out: Path, how: Execution) -> list[str]:
    """`awqscope run` or `compare` with every option, of a spec and of how it is carried out, that
    is not as by default."""
    command, *options = spec_arguments(spec, out, leave_out_defaults=True)
    beside = []
    for name, option in list_options(Execution).items():
        value = getattr(how, name)
        beside += write_option(option, value) if value != option.default else []
    return [*PYTHON, command, *beside, *options]


def requantize_command(run: Path, recipe: Path, out: Path, model: str | None) -> list[str]:
    """The command that makes and measures the checkpoint of a recipe. model: where the run's model
    is, if not where it was."""
    options = [f"--recipe={recipe}", f"--out={out}", "--prove", "--json", *name_model(model)]
    return [*PYTHON, "requantize", *options, "--", str(run)]


def name_model(model: str | None) -> list[str]:
    """The option that says where a run's model is, if not where it was."""
    return [] if model is None else [f"--model={model}"]


def launch(
    command: Sequence[str], log: Path, result: Path | None = None, directory: str | None = None
) -> int:
    """Start a command that outlives this process, in `directory` or here, and return its process.
    Its output goes to the end of `log`, which it keeps locked, but for its stdout where a file for
    the result is given. InputError where it cannot be started, which leaves no new file, or where
    one with this log is at work."""
    new = [path for path in (log, result) if path is not None and not path.exists()]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as said, open(result or os.devnull, "wb") as printed:
            take_lock(said)
            said.write(f"$ {write_command(command)}\n".encode())
            said.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed if result else said,
                stderr=said,
                cwd=directory,
                start_new_session=True,
            )
    except BlockingIOError as error:
        raise InputError(f"{log.stem} is being worked on", "wait for it to end") from error
    except (OSError, ValueError) as error:
        for path in new:
            path.unlink(missing_ok=True)
        raise InputError(
            f"it cannot be started ({error})", "look at the disk and at its path"
        ) from error
    Thread(target=process.wait, daemon=True).start()
    return process.pid


def last_lines(log: Path) -> str:
    """The end of a log."""
    return "\n".join(read_tail(log).splitlines()[-TAIL_LINES:])


@dataclass(frozen=True)
class Worker:
    """A process at work: `find` says which it is, None once it is gone; it keeps the file `held`
    open."""

    find: Callable[[], int | None]
    held: Path


def send_signal(worker: Worker, number: signal.Signals) -> bool:
    """Send a signal to a process at work; whether there is one. InputError where that is another's,
    or on another machine."""
    pid = worker.find()
    if pid is None:
        return False
    if not _has_open(pid, worker.held):
        raise InputError(f"process {pid} is on another machine", "stop it there")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise InputError(f"process {pid} belongs to another user", "ask them to stop it") from error
    return True


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process of this machine has a file open; taken for granted where the system does
    not show it. On a shared disk the number in a lock may be that of another machine's process."""
    try:
        opened = psutil.Process(pid).open_files()
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, OSError):
        return False
    return any(_is_same(path, Path(file.path)) for file in opened)


def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file; what is gone by now leads to none."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def insist(worker: Worker) -> None:
    """Wait for a process that was asked to stop, asking again more firmly."""
    for number in (*SIGNALS[1:], None):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if worker.find() is None:
                return
            time.sleep(GLANCE)
        if number is not None:
            send_signal(worker, number)


def find_reason(tail: str) -> str:
    """What a command said at its end, if it ended with the one line for what a user can mend."""
    start, _, said = (tail.splitlines() or [""])[-1].partition("awqscope: ")
    return f"{begin_sentence(said)}." if said and not start else ""
