"""Workers of a Ray cluster, which places tasks, and begins one again whose worker was killed.

Every node must see the model and the run's directory under the same paths, and hold the same
versions of the libraries.
"""

import contextlib
import itertools
import os
import pickle
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from awqscope.diagnose.inputs.load import describe_versions
from awqscope.diagnose.machine.ray_process import LOCAL, connected, import_ray
from awqscope.diagnose.machine.tasks import (
    AUTO,
    CPU,
    CUDA,
    TRIES,
    OnStep,
    Placement,
    Task,
    carry_out,
    killed,
)
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import write_text

# A node that is asked what it holds begins a process and imports torch. This machine is known to be
# there, however much else it does.
CHECK_SECONDS, CHECK_HERE_SECONDS = 180, 3600


@contextlib.contextmanager
def open_cluster(placement: Placement, run: RunDirectory, threads: int) -> Iterator["Cluster"]:
    """The cluster at an address, or one started on this machine and ended with the block. threads:
    of a task."""
    assert placement.ray is not None
    wished = placement.devices[0].partition(":")[0]
    with connected(placement.ray, wished, placement.workers, threads):
        there = import_ray().nodes()
        kind = choose_kind(there, wished, threads)
        nodes = usable_nodes(there, kind, threads)
        if not nodes:
            wanted = "a GPU" if kind == CUDA else f"{threads} free CPUs"
            raise InputError(
                f"no node of the Ray cluster {placement.ray} has {wanted}",
                "join another, or give --device cpu" if kind == CUDA else "lower OMP_NUM_THREADS",
            )
        _check_nodes(nodes, run, CHECK_HERE_SECONDS if placement.ray == LOCAL else CHECK_SECONDS)
        yield Cluster(nodes, kind, threads, placement.workers)


def choose_kind(nodes: Sequence[Mapping[str, Any]], wished: str, threads: int) -> str:
    """The kind of device that tasks compute on: the one wished for, or for `auto` a GPU where a
    node has any. See `usable_nodes`."""
    if wished != AUTO:
        return wished
    return CUDA if usable_nodes(nodes, CUDA, threads) else CPU


def usable_nodes(nodes: Iterable[Mapping[str, Any]], kind: str, threads: int) -> dict[str, int]:
    """Node -> tasks at once, of those of `ray.nodes()` that take any.

    kind: of device, `cpu` or `cuda`. threads: the CPUs that a task takes."""
    slots = {}
    for node in nodes:
        free = node["Resources"]
        room = int(free.get("CPU", 0) // threads)
        if kind == CUDA:
            room = min(room, int(free.get("GPU", 0)))
        if node["Alive"] and room:
            slots[node["NodeID"]] = room
    return slots


def _look(path: str) -> tuple[str, dict[str, str]]:
    """A node's name, and what it holds at `path` and of libraries. It runs there."""
    try:
        with open(path, encoding="utf-8") as file:
            found = file.read()
    except OSError:
        found = ""
    return socket.gethostname(), {"token": found, **describe_versions()}


def _check_nodes(nodes: Iterable[str], run: RunDirectory, seconds: float) -> None:
    """Raise InputError for a node that does not read in the run's directory what is written here,
    or holds other versions of the libraries. seconds: to answer in."""
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    made = [folder for folder in (run.work, run.path) if not folder.exists()]
    token = run.work.absolute() / "cluster"
    expected = {"token": secrets.token_hex(16), **describe_versions()}
    write_text(token, expected["token"])
    look = ray.remote(_look)
    found = [
        look.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(str(token))
        for node in nodes
    ]
    try:
        answers = ray.get(found, timeout=seconds)
    except ray.exceptions.GetTimeoutError as error:
        for reference in found:
            ray.cancel(reference, force=True)
        raise InputError(
            f"a node of the Ray cluster did not answer in {seconds} s",
            "look at `ray status`: it may be gone, or have no memory for a process",
        ) from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"a node of the Ray cluster cannot work ({reason})",
            "install awqscope in the environment that each node's Ray runs in",
        ) from error
    finally:
        token.unlink(missing_ok=True)
        # Nothing is begun before the plan is made.
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
    for name, holds in answers:
        if holds["token"] != expected["token"]:
            raise InputError(
                f"node {name} does not see {run.path.absolute()}",
                "keep model and run on a file system that every node has under the same path",
            )
        for library, version in expected.items():
            if holds[library] != version:
                raise InputError(
                    f"node {name} has {library} {holds[library]}, not {version} as here",
                    "install the same versions on every node",
                )


class Cluster:
    """Carries out as many tasks at once as there are free CPUs or GPUs."""

    here = False

    def __init__(self, nodes: Mapping[str, int], kind: str, threads: int, most: int | None):
        """nodes: name -> tasks at once. threads: of a task. most: tasks at once, None for all."""
        self.kind = kind
        # It may have begun on a node without a GPU, and takes the stream of the search there.
        self.device = torch.device(CUDA if kind == CUDA and torch.cuda.is_available() else CPU)
        self.devices: tuple[torch.device, ...] = (self.device,)
        self._nodes = nodes
        slots = sum(nodes.values())
        self.count = min(slots, most or slots)
        self.sharing = min(max(nodes.values()), self.count)
        self._limited = self.count < slots
        self._threads = threads

    def limited(self, most: int) -> "Cluster":
        """The same cluster with at most `most` tasks at once."""
        return Cluster(self._nodes, self.kind, self._threads, most)

    def run(self, tasks: Iterable[Task], on_step: OnStep) -> None:
        """Carry out the tasks (`Workers.run`). Where a worker or its node is gone, Ray begins its
        task again."""
        ray = import_ray()
        remote = ray.remote(carry_out).options(
            num_cpus=self._threads,
            num_gpus=1 if self.kind == CUDA else 0,
            max_retries=TRIES - 1,
        )
        # Twice as many as run at once are handed out, so that no worker waits for this process.
        most = self.count if self._limited else 2 * self.count
        coming, pending, done = iter(tasks), dict[Any, Task](), 0
        try:
            while True:
                for task in itertools.islice(coming, most - len(pending)):
                    arguments = (pickle.dumps(task), os.getcwd(), self.kind, self._threads)
                    pending[remote.remote(*arguments)] = task
                if not pending:
                    return
                for reference in ray.wait(list(pending))[0]:
                    _get(reference, pending[reference])
                    done += pending.pop(reference).steps
                    on_step(done)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


def _get(reference: Any, task: Task) -> None:
    """Wait for a task; its own error, or InputError where its worker was killed time and again."""
    ray = import_ray()
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise killed(task, f"says Ray: {reason}") from error
