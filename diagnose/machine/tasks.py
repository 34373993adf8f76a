"""Independent pieces of a run's work, and who carries them out.

A task reads what the run began with and leaves whole files in the run's directory; carried out
twice, it leaves the same. Who carries it out decides where, never what: this process, a process a
device, or a Ray cluster.
"""

import contextlib
import os
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from awqscope.diagnose.machine.memory import return_freed_tensors
from awqscope.mixedprec.errors import InputError

CPU = "cpu"
CUDA = "cuda"
AUTO = "auto"
# So that workers of unequal speed end together.
CHUNKS_A_WORKER = 2
# How often a task is begun, if the process that carries it out is killed.
TRIES = 3

OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """A piece of work. name: for messages. leaves: its files, as paths inside the run. steps: how
    many of them `work(device, on_step)` reports. `work` is pickled on its way to another process: a
    dataclass of a module with what it needs, called there."""

    name: str
    leaves: tuple[str, ...]
    steps: int
    work: Callable[[torch.device, OnStep], None]


def list_missing(tasks: Iterable[Task], there: Collection[str]) -> list[Task]:
    """The tasks of which not every file is among those that are `there`."""
    return [task for task in tasks if not set(task.leaves) <= set(there)]


@dataclass(frozen=True)
class Placement:
    """Where tasks are carried out. devices: `cpu`, or CUDA devices, each with a process of its own
    where there are several; of a cluster its kind, `cpu` or `cuda`, or `auto` for GPUs where a node
    has any. workers: processes that compute on the CPU, or the most tasks at once
    on a cluster; None for one, or for all that the cluster takes. ray: a cluster's address, `local`
    for one of this machine alone."""

    devices: tuple[str, ...] = (CPU,)
    workers: int | None = None
    ray: str | None = None


HERE = Placement()


class Workers(Protocol):
    """Who carries out tasks. here: whether it is this process, one task after another. kind: of
    device that tasks compute on, `cpu` or `cuda`. device: what this process itself computes on.
    devices: of this machine that tasks are known to compute on. count: tasks at once; sharing: the
    most of them on one machine, which share its memory."""

    here: bool
    kind: str
    device: torch.device
    devices: tuple[torch.device, ...]
    count: int
    sharing: int

    def run(self, tasks: Iterable[Task], on_step: OnStep) -> None:
        """Carry out tasks that do not need each other, asked for no sooner than they can be handed
        out. on_step: told the steps done of all of them. Errors are a task's own; InputError for a
        task whose process is killed time and again. What is finished stays."""
        ...


class ThisProcess:
    """Carries out one task after another."""

    here = True
    count = sharing = 1

    def __init__(self, device: str = CPU):
        self.device = torch.device(device)
        self.kind = self.device.type
        self.devices: tuple[torch.device, ...] = (self.device,)

    def run(self, tasks: Iterable[Task], on_step: OnStep) -> None:
        done = 0
        for task in tasks:

            def report(steps: int, before: int = done) -> None:
                on_step(before + steps)

            task.work(self.device, report)
            done += task.steps


def list_devices(placement: Placement) -> Sequence[str]:
    """What each process computes on."""
    return [CPU] * (placement.workers or 1) if placement.devices == (CPU,) else placement.devices


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """torch computes with so many threads until the block ends. Sums on the CPU depend on it in
    their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def carry_out(pickled: bytes, directory: str, device: str, threads: int) -> None:
    """Carry out a pickled task in a process that does nothing else. directory: where relative paths
    begin."""
    return_freed_tensors()
    torch.set_num_threads(threads)
    os.chdir(directory)
    task: Task = pickle.loads(pickled)
    task.work(torch.device(device), lambda steps: None)


def killed(task: Task, how: str) -> InputError:
    """The error of a task whose process was killed TRIES times. how: by what."""
    return InputError(
        f"{task.name}: its process was ended {TRIES} times, {how}",
        "most likely memory ran out: run the same command again with fewer workers or a smaller "
        "--max-memory; it resumes",
    )
