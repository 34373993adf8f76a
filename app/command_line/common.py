"""What commands share: errors and exit codes, and files that they write."""

import errno
import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from awqscope.app.command_line.interruption import interruptible
from awqscope.app.terminal.console import show_controls
from awqscope.diagnose.runs.naming import RUN, find_kind
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import has_written
from awqscope.mixedprec.files.shortage import explain_shortage

if TYPE_CHECKING:
    from awqscope.diagnose.machine.tasks import Placement
    from awqscope.diagnose.runs.record import AnyRecord

INPUT_ERROR = 2
UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
STDOUT = Path("-")
# What an interrupted command leaves behind.
GOES_ON, NOTHING = "the same command again goes on from here", "nothing was written"
Command = TypeVar("Command", bound=Callable[..., None])


def examples(*lines: str) -> Callable[[Command], Command]:
    """Give a command the lines that its help ends with."""

    def mark(command: Command) -> Command:
        command.examples = lines  # type: ignore[attr-defined]
        return command

    return mark


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end with one line and the right exit code where the user can mend it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with interruptible() as interruption:
            has_written.clear()
            try:
                command(*args, **kwargs)
            except typer.Exit:
                raise
            except (Exception, KeyboardInterrupt) as error:
                # A library may make an error of its own of an interrupt that falls into it.
                if isinstance(error, KeyboardInterrupt) or interruption.was_asked:
                    said = str(error) if isinstance(error, KeyboardInterrupt) else ""
                    what_now = said or (GOES_ON if has_written.is_set() else NOTHING)
                    sys.stderr.write(f"awqscope: interrupted; {what_now}\n")
                    raise typer.Exit(interruption.code) from error
                told = error if isinstance(error, InputError) else explain_error(error)
                if told is None:
                    raise
                tell(told)
                raise typer.Exit(INPUT_ERROR) from error

    return wrapped


def explain_error(error: Exception) -> InputError | None:
    """What a user can mend about an error that no check foresaw; None where it is a fault of ours.
    A path that is too long, or leads through what may not be entered, fails wherever it is used."""
    if isinstance(error, OSError) and error.errno in UNREACHABLE and error.filename:
        said = f"{os.fsdecode(error.filename)} cannot be used ({error.strerror})"
        return InputError(said, "check the path and its rights")
    return explain_shortage(error)


def tell(error: InputError) -> None:
    """Say an error in one line. Blanks inside a line stay: they may be a name's."""
    lines = (line.strip() for line in str(error).splitlines())
    said = " ".join(line for line in lines if line)
    sys.stderr.write(f"awqscope: {show_controls(said)}\n")


def check_output(path: Path) -> None:
    """Raise InputError, before anything is measured, for what cannot be a file to write."""
    if path == STDOUT:
        return
    if path.is_dir():
        raise InputError(f"{path} is a directory", "give a file, or - for stdout")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{path} cannot be written", f"{there} takes no file: give another")


def check_outputs(paths: Sequence[Path]) -> None:
    """As `check_output`, of several: also for two that are one file, and for one that would be the
    directory of another."""
    for path in paths:
        check_output(path)
    found = [path if path == STDOUT else path.resolve() for path in paths]
    if len(set(found)) < len(found):
        raise InputError("two outputs go to the same file", "give each its own")
    inside = [(one, other) for one in found for other in found if one in other.parents]
    if inside and STDOUT not in inside[0]:
        one, other = inside[0]
        raise InputError(f"{other} is in {one}, a file to write too", "give each its own")


def write_output(path: Path, text: str) -> None:
    """Write a file in one step, with the directories that it needs; what is there is replaced. `-`
    is stdout. InputError where it cannot be written."""
    from awqscope.mixedprec.files.atomic import write_text

    if path == STDOUT:
        # A page is in UTF-8 whatever the terminal's encoding.
        sys.stdout.buffer.write(text.encode())
        return
    check_output(path)
    try:
        write_text(path.resolve(), text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be written ({reason})", "give another file") from error


def begin_computing() -> None:
    """Have torch compute with as many threads as the machine lets this process have, in a command
    that continues no run, which has its own number of them."""
    import torch

    from awqscope.diagnose.machine.threads import choose_threads, read_cores

    torch.set_num_threads(choose_threads(read_cores()).alone)


def read_placement(device: str, workers: int | None, ray: str | None) -> "Placement":
    """Where the options say that tasks are carried out. InputError for a device that is not there,
    and for options that mean nothing together."""
    from awqscope.diagnose.machine.tasks import AUTO, CPU, CUDA, Placement

    if ray is not None:
        # Which devices there are, the cluster says, not this machine.
        if device not in (AUTO, CPU, CUDA):
            raise InputError(
                f"Ray places tasks on devices itself, not on {device}", "use auto, cpu or cuda"
            )
        return Placement((device,), workers, ray)
    devices = read_devices(device)
    if workers is not None and devices != (CPU,):
        raise InputError(
            "--workers counts processes on the CPU, and a CUDA device has one of its own",
            "leave it out, and list the devices to use with --device",
        )
    return Placement(devices, workers)


def read_devices(device: str) -> tuple[str, ...]:
    """The devices that --device names. InputError for one that is not there."""
    import torch

    from awqscope.diagnose.machine.tasks import AUTO, CPU, CUDA

    there = tuple(f"{CUDA}:{number}" for number in range(torch.cuda.device_count()))
    if device == CPU or (device == AUTO and not there):
        return (CPU,)
    named = there or (CUDA,)
    if device not in (AUTO, CUDA):
        named = tuple(dict.fromkeys(device.split(",")))
    if not all(re.fullmatch(r"cuda(:\d+)?", name) for name in named):
        raise InputError(
            f"device {device!r} is not supported", "use auto, cpu, cuda or cuda:N[,cuda:M]"
        )
    absent = [name for name in named if name not in there]
    if absent:
        found = f"there is {', '.join(there)}" if there else "torch finds none here"
        raise InputError(f"there is no device {absent[0]} ({found})", "use --device cpu, or auto")
    return named


def refuse_run(model: str) -> None:
    """Raise InputError for a run's directory where a model's should be."""
    path = Path(model)
    if find_kind(path) != RUN:
        return
    checkpoint = path / "checkpoint"
    if checkpoint.is_dir():
        raise InputError(f"{model} is a run, no model", f"its checkpoint is {checkpoint}")
    raise InputError(f"{model} is a run, no model", "it has no checkpoint; give a model")


def check_runs(runs_dir: Path, command: str) -> None:
    """Raise InputError for what is no directory of runs; for one run, with what is meant by
    `command` then."""
    if find_kind(runs_dir) == RUN:
        raise InputError(f"{runs_dir} is a run", command)
    if not runs_dir.is_dir():
        raise InputError(f"{runs_dir} is no directory", "give the directory that holds your runs")


def warn_of_code(trusted: bool, model: str) -> None:
    """Say on stderr that a model's own Python will be run, if it will."""
    if trusted:
        sys.stderr.write(f"awqscope: Python that comes with {model} is trusted and will be run\n")


def warn_of_type(record: "AnyRecord") -> None:
    """Say on stderr what serving in the run's type is known to come to, if anything is against it:
    what is measured is in the run's precision."""
    from awqscope.app.words.noise import name_precision
    from awqscope.app.words.verdict import write_run_type

    said = write_run_type(record)
    if said:
        sys.stderr.write(f"awqscope: measured in {name_precision(record)}. {said}\n")
