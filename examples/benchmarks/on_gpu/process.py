"""A part of a measurement in a process of its own: what it does to the device ends with it, and it
is stopped when its time is over. What it had noted by then is kept. Imports no torch."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from examples.benchmarks.on_gpu.setting import Setting

# By what is noted: a figure's name and its value.
Note = Callable[[str, Any], None]
Measure = Callable[[Setting, Note], None]
DONE, SKIPPED, FAILED, STOPPED = "done", "skipped", "failed", "stopped"
# On the CPU imported once, and not in each process.
PRELOADED = [
    f"examples.benchmarks.on_gpu.{name}" for name in ("machine", "equality", "search", "sweep")
]
# For a process that has told all it knows to end.
PARTING_SECONDS = 10


class SkipError(Exception):
    """A part that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Outcome:
    """How a part went. state: one of the four above. reason: why it is not done. figures: what it
    noted, by name."""

    state: str
    seconds: float
    reason: str | None
    figures: dict[str, Any]


def run_limited(measure: Measure, setting: Setting, seconds: float) -> Outcome:
    """Carry out a part in a process of its own, for so many seconds at most."""
    # CUDA cannot be begun in a fork of a process in which a library has looked for devices.
    context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
    if not setting.on_gpu:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_carry_out, args=(measure, setting, sender))
    began = time.monotonic()
    figures: dict[str, Any] = {}
    state, reason = STOPPED, f"stopped after its {seconds:.0f} s"
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, began + seconds - time.monotonic())):
            name, value = receiver.recv()
            if name is None:
                state, reason = value
                break
            figures[name] = value
    except EOFError:
        process.join()
        state, reason = FAILED, f"its process ended with code {process.exitcode}"
    finally:
        took = time.monotonic() - began
        if state != STOPPED:
            process.join(PARTING_SECONDS)
        _end(process)
    return Outcome(state, round(took, 1), reason, figures)


def _end(process: BaseProcess) -> None:
    """End a process with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    # Where it has not come to lead a group yet.
    process.kill()
    process.join()


def _carry_out(measure: Measure, setting: Setting, sender: Connection) -> None:
    """Send what a part notes, and last, under no name, how it ended."""
    os.setsid()

    def note(name: str, value: Any) -> None:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is {value}, which JSON has no word for") from error
        sender.send((name, value))

    end: tuple[str, str | None] = DONE, None
    try:
        measure(setting, note)
    except SkipError as error:
        end = SKIPPED, str(error)
    except Exception as error:
        traceback.print_exc()
        end = FAILED, f"{type(error).__name__}: {error}"
    sender.send((None, end))
