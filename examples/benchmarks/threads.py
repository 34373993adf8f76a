"""Threads that wait for each other, alone and beside other work: passively, as `awqscope` has them,
and spinning, as OpenMP does where nobody says otherwise.

`python -m examples.benchmarks.threads [PROCESSES] [SECONDS]`: the search of the bundled model's
first blocks, each way in a process of its own, in turn, alone and beside so many processes that do
nothing but compute (twice the cores without); one that takes longer than SECONDS is ended. The CPU
time is what counts: a slow-down with equal CPU time is the share of the cores that others had, and
what is spent beyond it was spent waiting. A machine that does other work besides makes all slower.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from awqscope.diagnose.machine.threads import PASSIVE, POLICY, SPINS, THREADS, read_cores

BLOCKS = 2
LONGEST = 300.0
MEASURE = "--measure"


class _Enough(Exception):  # noqa: N818
    """Raised to leave a search that has come far enough."""


def search_blocks() -> None:
    """Print the seconds, and the CPU seconds, that the first blocks' search takes."""
    from awqscope.app.demo import demo_spec
    from awqscope.diagnose.inputs.load import load_inputs
    from awqscope.mixedprec.awq.search import search_model

    def stop(done: int) -> None:
        if done >= BLOCKS:
            raise _Enough

    spec = demo_spec(0)
    inputs, schemes = load_inputs(spec), list(spec.schemes.values())
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        began, spent = time.monotonic(), time.process_time()
        search_model(inputs.model, inputs.search_windows, schemes, Path(folder), stop)
    print(json.dumps([time.monotonic() - began, time.process_time() - spent]))


@contextlib.contextmanager
def other_work(processes: int) -> Iterator[None]:
    """So many processes that compute until the block ends."""
    begun = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in begun:
            process.kill()
            process.wait()


def measure(threads: int, policy: str | None, seconds: float) -> tuple[float, float] | None:
    """Seconds and CPU seconds with so many threads that wait so; None where it was ended."""
    kept = {k: v for k, v in os.environ.items() if k not in (THREADS, POLICY, SPINS)}
    env = {**kept, THREADS: str(threads), **({POLICY: policy} if policy else {})}
    command = [sys.executable, "-m", "examples.benchmarks.threads", MEASURE]
    try:
        found = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return None
    wall, spent = json.loads(found.stdout)
    return wall, spent


def main() -> None:
    """Print a line for each way to wait, alone and beside other work."""
    if sys.argv[1:] == [MEASURE]:
        search_blocks()
        return
    cores = read_cores().whole
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2 * cores
    longest = float(sys.argv[2]) if len(sys.argv) > 2 else LONGEST
    print(f"the search of {BLOCKS} blocks on {cores} cores, load {os.getloadavg()[0]:.1f}")
    ways = ((cores, PASSIVE), (1, PASSIVE), (cores, None))
    for others in (0, processes):
        for threads, policy in ways:
            with other_work(others):
                found = measure(threads, policy, longest)
            took = f"{found[0]:.1f} s, CPU {found[1]:.1f} s" if found else f"over {longest:.0f} s"
            how = "passive" if policy else "spinning"
            print(f"{others} others, {threads} threads, {how}: {took}", flush=True)


if __name__ == "__main__":
    main()
