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
from multiprocessing.process import BaseProcess

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


class _Place:
    """A device and the process that computes on it."""

    def __init__(self, device: str, threads: int):
        self._device, self._threads = device, threads
        self._process: BaseProcess | None = None
        self._renew()

    def _renew(self) -> None:
        self._process = None
        self._pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process
        )

    def start(self, task: Task) -> Future[None]:
        """Hand it a task; the first begins the process."""
        arguments = (pickle.dumps(task), os.getcwd(), self._device, self._threads)
        if self._process is not None:
            return self._pool.submit(carry_out, *arguments)
        before = set(multiprocessing.active_children())
        with held_back():
            future = self._pool.submit(carry_out, *arguments)
        (self._process,) = set(multiprocessing.active_children()) - before
        return future

    def replace(self) -> int | None:
        """Put a new process in the place of one that ended; that one's exit code."""
        process = self._process
        self._pool.shutdown()
        self._renew()
        return None if process is None else process.exitcode

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
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
        self._places = [_Place(device, threads) for device in devices]

    def run(self, tasks: Iterable[Task], on_step: OnStep) -> None:
        """Carry out the tasks (`Workers.run`); one whose process was killed is begun again."""
        coming, again, free = iter(tasks), list[tuple[Task, int]](), list(self._places)
        running: dict[Future[None], tuple[_Place, Task, int]] = {}
        done = 0
        while True:
            while free:
                task, tries = again.pop() if again else (next(coming, None), 0)
                if task is None:
                    break
                place = free.pop(0)
                running[place.start(task)] = (place, task, tries + 1)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, task, tries = running.pop(future)
                free.append(place)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    code = place.replace()
                    if tries == TRIES:
                        raise _lost(task, code) from error
                    again.append((task, tries))
                    continue
                done += task.steps
                on_step(done)

    def close(self) -> None:
        """End every process."""
        for place in self._places:
            place.close()


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
