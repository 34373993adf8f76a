"""Clusters of Ray, each driven by a process of its own: Ray's library ends the process that drives
it, at once and with all that it was at, where it gives its cluster up. That once was a worker of
pytest, with other tests to come."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.help.root import ROOT

pytestmark = pytest.mark.ray

# The cluster's own process says nothing for longer than the minute after which Ray gives it up.
SILENT = """
import signal, sys, time
from functools import partial
from pathlib import Path

import psutil

from awqscope.diagnose.machine.cluster import open_cluster
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.machine.tasks import Placement
from tests.help.counted import small_task, write_file

folder = Path(sys.argv[1])
with open_cluster(Placement(workers=1, ray="local"), RunDirectory(folder), 1) as cluster:
    (server,) = [p for p in psutil.Process().children() if p.name() == "gcs_server"]
    server.send_signal(signal.SIGSTOP)
    time.sleep(75)
    server.send_signal(signal.SIGCONT)
    cluster.run([small_task("a", partial(write_file, folder / "a", "task a"))], lambda done: None)
print((folder / "a").read_text())
"""
# Ray gives its own processes half a minute to start, whatever else the machine does.
LATE, TRIES = "Ray starts no cluster on this machine (The current node timed out", 5


def run_apart(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in a session of its own. What it leaves is ended with it."""
    for _ in range(TRIES):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if LATE not in said:
            break
    return subprocess.CompletedProcess(process.args, process.returncode, said)


def test_a_cluster_of_two_workers() -> None:
    done = run_apart("-m", "pytest", "-p", "no:cacheprovider", "tests/help/on_a_cluster.py")
    assert done.returncode == 0, done.stdout


def test_a_cluster_that_falls_silent_is_waited_for(tmp_path: Path) -> None:
    done = run_apart("-c", SILENT, str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "task a on cpu" in done.stdout
