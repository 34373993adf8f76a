"""Ray as this process has it: importing it, starting a cluster of this machine or joining one, and
leaving it."""

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from awqscope.diagnose.machine.signals import kept
from awqscope.diagnose.machine.tasks import CPU, TRIES
from awqscope.diagnose.machine.threads import read_cores
from awqscope.mixedprec.errors import InputError

LOCAL = "local"
# Ray reads all this as it is imported. Nothing is sent to its makers; a cluster of this machine
# answers on loopback alone, to those who hold its token.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
# Ray counts tries that ended for lack of memory separately, and allows very many by default.
FEW_TRIES = {"RAY_task_oom_retries": str(TRIES - 1)}
# Ray ends the process that drives it, with all its work, where the cluster's own process was silent
# for a minute, and gives up nodes and workers that are late. On a machine with other work they are
# late: a cluster of this machine is given more time.
PATIENT = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "900",
    "RAY_worker_register_timeout_seconds": "900",
    "RAY_health_check_failure_threshold": "1000",
}
CONNECT_SECONDS = 10
# Files, not objects, pass between tasks.
OBJECT_STORE_BYTES = 128 * 2**20


def import_ray() -> Any:
    """Ray. InputError where it is not installed."""
    _set_default(QUIET)
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--ray needs Ray, which cannot be imported ({error})", "pip install 'awqscope[ray]'"
        ) from error
    return ray


def _set_default(variables: Mapping[str, str]) -> None:
    """Set those environment variables that are not set, unless it is too late for it."""
    if "ray" not in sys.modules:
        os.environ.update({**variables, **os.environ})


@contextlib.contextmanager
def connected(address: str, kind: str, workers: int | None, threads: int) -> Iterator[None]:
    """Connected to Ray. threads: of a task. Who has connected already stays connected."""
    if address != LOCAL:
        ray = import_ray()
        joined = not ray.is_initialized()
        if joined:
            _join(address)
        try:
            yield
        finally:
            if joined:
                ray.shutdown()
        return
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    _set_default({**LOOPBACK, **FEW_TRIES, **PATIENT, **token})
    ray = import_ray()
    # Sockets live in it, whose paths may not be long.
    folder = tempfile.mkdtemp(prefix="awqscope-ray-", dir="/tmp")
    try:
        # Ray would end the process by SIGTERM in its own way.
        with kept():
            _start(
                num_cpus=threads * workers if workers else max(threads, read_cores().whole),
                num_gpus=0 if kind == CPU else torch.cuda.device_count(),
                _temp_dir=folder,
            )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(**options: Any) -> None:
    """Start a cluster of this machine alone. InputError where it does not come up."""
    try:
        import_ray().init(
            address=LOCAL,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
            **options,
        )
    except Exception as error:
        raise InputError(
            f"Ray starts no cluster on this machine ({_first_line(error)})",
            "run the same command again when the machine has less to do, or give --workers "
            "without --ray",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _join(address: str) -> None:
    """Connect to the cluster at an address. InputError where there is none."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        with kept():
            import_ray().init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise InputError(
            f"no Ray cluster can be joined at {address} ({_first_line(error)})",
            "start one with `ray start --head`, or give --ray local",
        ) from error
