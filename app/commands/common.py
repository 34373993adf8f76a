"""What commands share: errors and exit codes, options, amounts."""

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.terminal import show_controls
from mixedprec.errors import InputError
from mixedprec.shortage import explain_shortage

if TYPE_CHECKING:
    from diagnose.tasks import Placement

INPUT_ERROR = 2
INTERRUPTED = 130
STDOUT = Path("-")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Run directory. [default: reports/NAME]"),
]
MaxMemoryOption = Annotated[
    str,
    typer.Option(
        help="What a run may hold, of the host and of a device; streams that do not fit go to "
        "files in the run directory. Workers share it."
    ),
]
ChunkWindowsOption = Annotated[
    int | None,
    typer.Option(
        help="Windows measured at a time, at most: a killed run loses what it has of them. "
        "[default: as many as memory takes]"
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python that comes with the model, with all that you may do yourself.",
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        help="Type that the checkpoint stores and is served in: float16, bfloat16, or auto for the "
        "one that the model comes in. bfloat16 holds what passes float16's 65,504.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the bootstrap and of sampled tokens.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the headline numbers as JSON.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="cpu, cuda (all there are), or cuda:N[,cuda:M]; several share the work. auto is cuda "
        "where there is any; with --ray, auto, cpu or cuda of the cluster's nodes.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes that share the work on the CPU; with --ray, tasks at once."
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Share the work through Ray: HOST:PORT or auto to join a cluster, local to start one.",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end with one line and the right exit code where the user can mend it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            _tell(error)
            raise typer.Exit(INPUT_ERROR) from error
        except KeyboardInterrupt as error:
            what_now = str(error) or "the same command again goes on from here"
            sys.stderr.write(f"awqscope: interrupted; {what_now}\n")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            told = explain_shortage(error)
            if told is None:
                raise
            _tell(told)
            raise typer.Exit(INPUT_ERROR) from error

    return wrapped


def _tell(error: InputError) -> None:
    sys.stderr.write(f"awqscope: {show_controls(' '.join(str(error).split()))}\n")


def check_output(path: Path) -> None:
    """Raise InputError, before anything is measured, for what cannot be a file to write."""
    if path == STDOUT:
        return
    if path.is_dir():
        raise InputError(f"{path} is a directory", "give a file, or - for stdout")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{path} cannot be written", f"{there} takes no file: give another")


def write_output(path: Path, text: str) -> None:
    """Write a file in one step, with the directories that it needs; what is there is replaced. `-`
    is stdout. InputError where it cannot be written."""
    from mixedprec.files import write_text

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


def read_placement(device: str, workers: int | None, ray: str | None) -> "Placement":
    """Where the options say that tasks are carried out. InputError for a device that is not there,
    and for options that mean nothing together."""
    from diagnose.tasks import AUTO, CPU, CUDA, Placement

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

    from diagnose.tasks import AUTO, CPU, CUDA

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


def parse_bytes(text: str) -> int:
    """`8GiB`, `500MB` or a number of bytes. InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise InputError(f"{text!r} is no amount of memory", "give it like 8GiB or 500MB")
    number, unit, binary = match.groups()
    power = UNITS[unit.upper()]
    if binary:
        power = 1024 ** ("", "K", "M", "G", "T").index(unit.upper())
    return int(float(number) * power)


def warn_of_code(trusted: bool, model: str) -> None:
    """Say on stderr that a model's own Python will be run, if it will."""
    if trusted:
        sys.stderr.write(f"awqscope: Python that comes with {model} is trusted and will be run\n")


def warn_of_type(record: Mapping[str, Any]) -> None:
    """Say on stderr what serving in the run's type is known to come to, if anything is against it:
    what is measured is in float32."""
    from app.verdict import describe_run_type
    from mixedprec.dtypes import write_type

    said = write_type(describe_run_type(record))
    if said:
        sys.stderr.write(f"awqscope: measured in float32. {said}\n")


def default_out(model: str) -> Path:
    """Where a run of `model` goes unless told otherwise."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-.")
    return Path("reports") / (name or "run")
