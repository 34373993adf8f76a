"""Workers whose tasks leave a line where they begin, and of which one dies in the middle, once."""

import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from awqscope.diagnose.machine.tasks import OnStep, Task, Workers
from awqscope.mixedprec.errors import InputError


class Counted:
    """As `workers`, but every task writes its name to `log`, and the process of the one called
    `victim` is killed at its first step the first time."""

    def __init__(self, workers: Workers, log: Path, victim: str):
        self.here, self.kind = workers.here, workers.kind
        self.device, self.devices = workers.device, workers.devices
        self.count, self.sharing = workers.count, workers.sharing
        self._workers, self._log, self._victim = workers, log, victim

    def run(self, tasks: Iterable[Task], on_step: OnStep) -> None:
        noted = (
            replace(task, work=partial(_note, self._log, task, task.name == self._victim))
            for task in tasks
        )
        self._workers.run(noted, on_step)


def _note(log: Path, task: Task, dies: bool, device: torch.device, on_step: OnStep) -> None:
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{task.name}\n")
    flag = log.with_suffix(".died")

    def step(done: int) -> None:
        if dies and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        on_step(done)

    task.work(device, step)


def write_file(path: Path, text: str, device: torch.device, on_step: OnStep) -> None:
    """The work of a task: a file of some text."""
    path.write_text(f"{text} on {device}", encoding="utf-8")
    on_step(1)


def refuse(device: torch.device, on_step: OnStep) -> None:
    """The work of a task that cannot be used."""
    raise InputError("the text holds nothing", "give another")


def fail(device: torch.device, on_step: OnStep) -> None:
    """The work of a task with a fault of its own."""
    raise ZeroDivisionError("by nought")


def die(device: torch.device, on_step: OnStep) -> None:
    """The work of a task that no process outlives."""
    os.kill(os.getpid(), signal.SIGKILL)


def small_task(name: str, work: partial | object, *leaves: str) -> Task:
    """A task of one step."""
    return Task(name, leaves, 1, work)  # type: ignore[arg-type]
