"""Workers of one machine: a process for each device, each in a pool of its own, so that a killed
process costs only the task that it was carrying out."""

import contextlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from awqscope.diagnose.machine.signals import held_back, leave_to_parent
from awqscope.diagnose.machine.tasks import TRIES, OnStep, Task, carry_out, killed


def _begin_process() -> None:
    """Leave signals to the process that hands out tasks, and end when it does."""
    leave_to_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class _Context(SpawnContext):
    """Starts processes afresh, and keeps the one that it started: a pool of one tells of none."""

    started: BaseProcess | None = None

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: N802
        self.started = super().Process(*args, **kwargs)
        return self.started


class _Slot:
    """A device and the process that computes on it."""

    def __init__(self, device: str, threads: int):
        self._device, self._threads = device, threads
        self._renew()

    def _renew(self) -> None:
        self._context = _Context()
        self._pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=_begin_process)

    def start(self, task: Task) -> Future[None]:
        """Hand it a task; the first begins the process."""
        arguments = (pickle.dumps(task), os.getcwd(), self._device, self._threads)
        if self._context.started is not None:
            return self._pool.submit(carry_out, *arguments)
        with held_back():
            return self._pool.submit(carry_out, *arguments)

    def replace(self) -> int | None:
        """Put a new process where one has ended; that one's exit code."""
        process = self._context.started
        self._pool.shutdown()
        self._renew()
        return None if process is None else process.exitcode

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._context.started is not None:
            self._context.started.kill()
        self._pool.shutdown(cancel_futures=True)


class Processes:
    """Carries out a task a device at once."""

    here = False

    def __init__(self, devices: Sequence[str], threads: int):
        """threads: of each process."""
        self.devices = tuple(dict.fromkeys(torch.device(device) for device in devices))
        self.device = self.devices[0]
        self.kind = self.device.type
        self.count = self.sharing = len(devices)
        self._slots = [_Slot(device, threads) for device in devices]

    def run(self, tasks: Iterable[Task], on_step: OnStep) -> None:
        """Carry out the tasks (`Workers.run`); one whose process was killed is begun again."""
        coming, again, free = iter(tasks), list[tuple[Task, int]](), list(self._slots)
        running: dict[Future[None], tuple[_Slot, Task, int]] = {}
        done = 0
        while True:
            while free:
                task, tries = again.pop() if again else (next(coming, None), 0)
                if task is None:
                    break
                slot = free.pop(0)
                running[slot.start(task)] = (slot, task, tries + 1)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, task, tries = running.pop(future)
                free.append(slot)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    code = slot.replace()
                    if tries == TRIES:
                        raise _lost(task, code) from error
                    again.append((task, tries))
                    continue
                done += task.steps
                on_step(done)

    def close(self) -> None:
        """End every process."""
        for slot in self._slots:
            slot.close()


def _lost(task: Task, code: int | None) -> Exception:
    """The error of a task that ended every process it was given."""
    if code is None or code >= 0:
        return RuntimeError(f"{task.name}: its process ended with exit code {code}")
    return killed(task, f"last by signal {-code}")


@contextlib.contextmanager
def open_processes(devices: Sequence[str], threads: int) -> Iterator[Processes]:
    """A process for each device, until the block ends."""
    processes = Processes(devices, threads)
    try:
        yield processes
    finally:
        processes.close()
