"""Two workers against one: the AWQ search and the sweep, by processes and by Ray.

`OMP_NUM_THREADS=1 python -m examples.benchmarks.workers [processes | ray …]`; random weights. Both
sides are at work before the clock starts, each with one thread, and take turns, so that what else
the machine does falls on both alike. One worker, too, is handed tasks by this process. It wants two
cores with nothing else on them.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from awqscope.app.demo import find_demo
from awqscope.diagnose.machine.cluster import open_cluster
from awqscope.diagnose.machine.processes import open_processes
from awqscope.diagnose.machine.tasks import Placement, Task, Workers
from awqscope.diagnose.machine.threads import read_cores
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import prepare_run
from examples.benchmarks.random_llama import save_random_llama
from examples.benchmarks.resting import rest
from examples.train_model import train_tokenizer

REPEATS = 3
STAGES = ("search", "sweep")
Pair = dict[int, Workers]


def make_model(folder: Path, text: str) -> None:
    """Save a random llama of 14 million parameters with its tokenizer."""
    save_random_llama(folder, hidden=384, intermediate=1024, blocks=8, heads=6, key_value_heads=3)
    train_tokenizer([text], 4096).save_pretrained(folder)


@contextlib.contextmanager
def open_pair(kind: str, run: RunDirectory) -> Iterator[Pair]:
    """One worker and two, of one kind."""
    if kind == "processes":
        with open_processes(["cpu"], 1) as one, open_processes(["cpu"] * 2, 1) as two:
            yield {1: one, 2: two}
        return
    with open_cluster(Placement(workers=2, ray="local"), run, 1) as two:
        yield {1: two.limited(1), 2: two}


def measure(spec: RunSpec, out: Path, count: int, workers: Workers) -> dict[str, float]:
    """Seconds of each stage in a fresh run directory."""
    work, run = prepare_run(spec), RunDirectory(out)
    run.create(work.description)
    plan = work.plan(out, workers, {})
    setting = Setting(run, workers, plan, lambda *event: None)
    seconds = {}
    for stage in STAGES:
        action = work.stages[stage]
        assert not isinstance(action, str)
        began = time.perf_counter()
        action(setting)
        seconds[stage] = time.perf_counter() - began
    return seconds


def main() -> None:
    """Print, for each kind, how many times faster two workers are than one."""
    torch.set_num_threads(1)
    kinds = sys.argv[1:] or ["processes", "ray"]
    demo = find_demo()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model", (demo / "calib.txt").read_text(encoding="utf-8"))
        spec = RunSpec(
            model=str(folder / "model"),
            calib=str(demo / "calib.txt"),
            valid=str(demo / "valid.txt"),
            seq_len=256,
            windows=8,
            calib_windows=4,
            calib_seq_len=256,
        )
        print(f"{read_cores().whole} cores, one thread a worker")
        for kind in kinds:
            with open_pair(kind, RunDirectory(folder)) as pair:
                for workers in pair.values():
                    warm = Task("warming up", (), 1, partial(rest))
                    workers.run([replace(warm, name=f"{n}") for n in range(2)], lambda done: None)
                ratios: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "both")}
                for turn in range(REPEATS):
                    found = {
                        count: measure(spec, folder / f"{kind}-{turn}-{count}", count, workers)
                        for count, workers in pair.items()
                    }
                    for seconds in found.values():
                        seconds["both"] = sum(seconds.values())
                    for stage, values in ratios.items():
                        values.append(found[1][stage] / found[2][stage])
                    spent = ", ".join(f"{n}: {s['both']:.0f} s" for n, s in found.items())
                    print(f"  {kind}, turn {turn + 1}: {spent}", flush=True)
            medians = {stage: statistics.median(values) for stage, values in ratios.items()}
            line = ", ".join(f"{stage} {ratio:.2f}" for stage, ratio in medians.items())
            print(f"{kind}: two workers are faster by {line} (median of {REPEATS})", flush=True)


if __name__ == "__main__":
    main()
