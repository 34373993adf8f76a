"""Opens the workers that a placement asks for: this process, one a device, or a Ray cluster."""

import contextlib
from collections.abc import Iterator

from awqscope.diagnose.machine.cluster import open_cluster
from awqscope.diagnose.machine.processes import open_processes
from awqscope.diagnose.machine.tasks import (
    Placement,
    ThisProcess,
    Workers,
    list_devices,
    share_threads,
)
from awqscope.diagnose.runs.directory import RunDirectory


@contextlib.contextmanager
def open_workers(placement: Placement, run: RunDirectory) -> Iterator[Workers]:
    """Those that a placement asks for, until the block ends. InputError for a cluster that does not
    answer or does not share the file system that holds the run."""
    devices = list_devices(placement)
    if placement.ray is not None:
        with open_cluster(placement, run) as cluster:
            yield cluster
    elif len(devices) == 1:
        yield ThisProcess(devices[0])
    else:
        with open_processes(devices, share_threads(len(devices))) as processes:
            yield processes
