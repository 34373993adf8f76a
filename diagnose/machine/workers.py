"""Opens the workers that a placement asks for: this process, one a device, or a Ray cluster."""

import contextlib
from collections.abc import Iterator

from awqscope.diagnose.entries.threads import Threads
from awqscope.diagnose.machine.cluster import open_cluster
from awqscope.diagnose.machine.processes import open_processes
from awqscope.diagnose.machine.ray_process import LOCAL
from awqscope.diagnose.machine.tasks import (
    Placement,
    ThisProcess,
    Workers,
    computing_with,
    list_devices,
)
from awqscope.diagnose.machine.threads import choose_threads, keep_threads, read_cores
from awqscope.diagnose.runs.directory import RunDirectory


def count_sharing(placement: Placement) -> int | None:
    """The processes that share this machine's cores; None where a cluster places them."""
    if placement.ray is None:
        return len(list_devices(placement))
    return placement.workers if placement.ray == LOCAL else None


def settle_threads(run: RunDirectory, placement: Placement) -> Threads:
    """With how many threads a run is begun, or was."""
    cores = read_cores()
    begun = run.read().threads if run.exists() else None
    return keep_threads(begun, cores) if begun else choose_threads(cores, count_sharing(placement))


@contextlib.contextmanager
def open_workers(placement: Placement, run: RunDirectory, threads: Threads) -> Iterator[Workers]:
    """Those that a placement asks for, until the block ends. InputError for a cluster that does not
    answer or does not share the file system that holds the run.

    This process has as many threads as each of them, so that it gives the numbers that they would.
    A cluster is not to wait for it: beside that it has as many as if it was alone."""
    devices = list_devices(placement)
    if placement.ray is not None:
        with (
            computing_with(threads.alone),
            open_cluster(placement, run, threads.each) as cluster,
        ):
            yield cluster
        return
    with computing_with(threads.each):
        if len(devices) == 1:
            yield ThisProcess(devices[0])
        else:
            with open_processes(devices, threads.each) as processes:
                yield processes
