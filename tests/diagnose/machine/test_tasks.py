"""Tasks: what is missing, how work is cut, and processes that carry it out."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqscope.app.command_line.common import read_placement
from awqscope.diagnose.machine import processes as processes_module
from awqscope.diagnose.machine import ray_process
from awqscope.diagnose.machine import tasks as tasks_module
from awqscope.diagnose.machine.cluster import (
    Cluster,
    choose_kind,
    import_ray,
    open_cluster,
    usable_nodes,
)
from awqscope.diagnose.machine.processes import Processes, open_processes
from awqscope.diagnose.machine.signals import ENDING
from awqscope.diagnose.machine.tasks import (
    Placement,
    Task,
    ThisProcess,
    list_missing,
)
from awqscope.diagnose.passes.chunks import choose_size
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages import pipeline as pipeline_module
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.streams import batch_size, list_slices
from tests.help.counted import Counted, die, fail, refuse, small_task, write_file
from tests.help.whole_runs import assert_equal_runs, measuring_spec

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def spec(make_model: MakeModel, text_file: Path) -> RunSpec:
    return measuring_spec(make_model, text_file)


@pytest.fixture(scope="module")
def alone(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A run in this process, with as many threads as a worker has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield run_pipeline(spec, tmp_path_factory.mktemp("alone") / "run", lambda *event: None)


@pytest.fixture(scope="module")
def pair() -> Iterator[Processes]:
    """Two processes with a thread each."""
    with open_processes(["cpu", "cpu"], 1) as processes:
        yield processes


def test_what_is_missing_is_what_lacks_a_file() -> None:
    tasks = [Task("a", ("1", "2"), 1, die), Task("b", ("3",), 1, die), Task("c", ("4",), 1, die)]
    assert list_missing(tasks, {"1", "3"}) == [tasks[0], tasks[2]]
    assert list_missing(tasks, {"1", "2", "3", "4", "5"}) == []


@given(st.integers(1, 200), st.integers(1, 600), st.integers(1, 300), st.integers(2, 9))
def test_chunks_never_change_who_is_computed_together(
    count: int, length: int, most: int, workers: int
) -> None:
    """Whatever the memory and the workers, the batches of the chunks are those of the whole."""
    batch = batch_size(length)
    for hands in (1, workers):
        size = choose_size(count, length, most, hands)
        chunks = list_slices(count, size)
        batches = [b.start + c.start for c in chunks for b in list_slices(c.stop - c.start, batch)]
        assert batches == [whole.start for whole in list_slices(count, batch)]
        assert size <= max(most, batch)
    assert size <= max(batch, count / (2 * workers) + 1)


def test_this_process_tells_every_step(tmp_path: Path) -> None:
    told: list[int] = []
    work = partial(write_file, tmp_path / "a", "here")
    ThisProcess().run([small_task("a", work), small_task("b", work)], told.append)
    assert told == [1, 2]


def test_a_task_that_is_killed_costs_itself_alone(
    spec: RunSpec,
    alone: RunDirectory,
    pair: Processes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    log, victim = tmp_path / "log", "chunk 1 of the sweep"
    counted = Counted(pair, log, victim)
    monkeypatch.setattr(
        pipeline_module,
        "open_workers",
        lambda *_: contextlib.nullcontext(counted),
    )
    events: list[tuple[str, int, int]] = []
    run = run_pipeline(spec, tmp_path / "run", lambda *event: events.append(event))
    begun = Counter(log.read_text().split("\n")[:-1])
    assert begun.pop(victim) == 2
    assert set(begun.values()) == {1}
    assert {f"the search of block {n}" for n in range(4)} < begun.keys()
    assert {f"chunk {n} of estimate 0" for n in range(3)} < begun.keys()
    for stage in ("search", "sweep", "estimate", "exact"):
        done = [event[1] for event in events if event[0] == stage]
        assert done == sorted(done)
        assert events[[e[0] for e in events].index(stage)][1] > 0
        assert done[-1] == [event[2] for event in events if event[0] == stage][-1]
    assert_equal_runs(run, alone)


def test_errors_come_back_whole(pair: Processes, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        pair.run([small_task("a", refuse)], lambda done: None)
    assert (caught.value.what, caught.value.remedy) == ("the text holds nothing", "give another")
    with pytest.raises(ZeroDivisionError, match="by nought"):
        pair.run([small_task("a", fail)], lambda done: None)
    # The processes go on working.
    pair.run([small_task("a", partial(write_file, tmp_path / "a", "there"))], lambda done: None)
    assert (tmp_path / "a").read_text() == "there on cpu"


def test_workers_leave_signals_to_who_hands_out_tasks(pair: Processes, tmp_path: Path) -> None:
    """A terminal and a supervisor send them to all of a group."""

    def write(name: str) -> None:
        files = [tmp_path / f"{name}{number}" for number in (1, 2)]
        tasks = [small_task(f.name, partial(write_file, f, f.name)) for f in files]
        pair.run(tasks, lambda done: None)

    def list_workers() -> list[int]:
        return sorted(process.pid or 0 for process in multiprocessing.active_children())

    write("before")
    workers = list_workers()
    for pid in workers:
        for number in ENDING:
            os.kill(pid, number)
    write("after")
    assert list_workers() == workers
    assert (tmp_path / "after2").read_text() == "after2 on cpu"


def test_a_task_that_kills_every_process_is_given_up(
    pair: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes_module, "TRIES", 1)
    monkeypatch.setattr(tasks_module, "TRIES", 1)
    with pytest.raises(InputError, match=r"block 3: .* signal 9.*fewer workers"):
        pair.run([small_task("block 3", die)], lambda done: None)


@pytest.mark.slow
def test_workers_end_with_a_killed_driver_and_a_resume_repeats_nothing(
    spec: RunSpec, alone: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    program = (
        "import sys; from pathlib import Path\n"
        "from awqscope.diagnose.stages.pipeline import run_pipeline\n"
        "from awqscope.diagnose.runs.spec import RunSpec\n"
        "from awqscope.diagnose.machine.tasks import Placement\n"
        "import json\n"
        "if __name__ == '__main__':\n"
        "    spec = RunSpec.from_json(json.loads(sys.argv[1]))\n"
        "    print('begin', flush=True)\n"
        "    run_pipeline(spec, Path(sys.argv[2]), lambda *e: print(*e, flush=True),"
        " Placement(workers=2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    driver = subprocess.Popen(
        [sys.executable, str(script), json.dumps(spec.to_json()), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("sweep"):
            break
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(driver.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert children
    # They follow, however long a busy machine takes for it; children that nobody waits for vanish.
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        time.sleep(0.1)
    kept = {p: p.stat().st_mtime_ns for p in [*out.glob("awq/*"), *out.glob("work/sweep-*")]}
    assert len(kept) > 8
    repeated: list[Path] = []

    def watch(stage: str, done: int, total: int) -> None:
        repeated.extend(
            p for p, when in kept.items() if p.exists() and p.stat().st_mtime_ns != when
        )

    run = run_pipeline(spec, out, watch)
    assert not repeated
    assert_equal_runs(run, alone)


def test_nodes_take_as_many_tasks_as_fit() -> None:
    def node(name: str, alive: bool = True, **resources: float) -> dict:
        return {"NodeID": name, "Alive": alive, "Resources": resources}

    nodes = [
        node("head", memory=1e9),
        node("small", CPU=3.0),
        node("gpus", CPU=8.0, GPU=4.0),
        node("starved", CPU=1.0, GPU=4.0),
        node("gone", alive=False, CPU=64.0, GPU=8.0),
    ]
    assert usable_nodes(nodes, "cpu", 1) == {"small": 3, "gpus": 8, "starved": 1}
    assert usable_nodes(nodes, "cpu", 2) == {"small": 1, "gpus": 4}
    assert usable_nodes(nodes, "cuda", 1) == {"gpus": 4, "starved": 1}
    # Whatever the machine has that asks.
    assert [choose_kind(nodes, wished, 1) for wished in ("auto", "cpu", "cuda")] == [
        "cuda",
        "cpu",
        "cuda",
    ]
    assert choose_kind(nodes[:2], "auto", 1) == "cpu"
    assert choose_kind(nodes[:2], "cuda", 1) == "cuda"


def test_a_cluster_with_gpus_takes_the_stream_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for here, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=here: here)
        found = Cluster({"gpus": 4}, "cuda", 1, None)
        assert (found.kind, found.device.type, found.limited(2).kind) == ("cuda", device, "cuda")
        assert Cluster({"cpus": 4}, "cpu", 1, None).device.type == "cpu"


def test_ray_that_is_missing_or_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(InputError, match=r"pip install 'awqscope\[ray\]'"):
            import_ray()
    unused = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setattr(ray_process, "import_ray", lambda: unused)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        placement = Placement(ray=address)
        with (
            pytest.raises(InputError, match=f"joined at {address} .*refused.*ray start --head"),
            open_cluster(placement, RunDirectory(tmp_path), 1),
        ):
            pass


@pytest.mark.parametrize(
    ("devices", "arguments", "wanted"),
    [
        (0, ("auto", None, None), Placement(("cpu",))),
        (0, ("cpu", 3, None), Placement(("cpu",), 3)),
        (2, ("auto", None, None), Placement(("cuda:0", "cuda:1"))),
        (0, ("cuda", None, "auto"), Placement(("cuda",), None, "auto")),
        (0, ("auto", None, "host:1"), Placement(("auto",), None, "host:1")),
        (2, ("cuda:1", None, None), Placement(("cuda:1",))),
        (3, ("cuda:2,cuda:0,cuda:2", None, None), Placement(("cuda:2", "cuda:0"))),
        (2, ("cpu", 2, "local"), Placement(("cpu",), 2, "local")),
        (0, ("cuda", None, None), "there is no device cuda (torch finds none here)"),
        (2, ("cuda:0,cuda:2", None, None), "there is no device cuda:2 (there is cuda:0, cuda:1)"),
        (2, ("tpu", None, None), "use auto, cpu, cuda or cuda:N"),
        (2, ("cuda:x", None, None), "use auto, cpu, cuda or cuda:N"),
        (2, ("cuda", 2, None), "--workers counts processes on the CPU"),
        (2, ("cuda:0,cuda:1", None, "auto"), "use auto, cpu or cuda"),
        (2, ("cuda:1", None, "auto"), "not on cuda:1"),
    ],
)
def test_where_options_place_the_work(
    devices: int,
    arguments: tuple[str, int | None, str | None],
    wanted: Placement | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    if isinstance(wanted, Placement):
        assert read_placement(*arguments) == wanted
        return
    with pytest.raises(InputError) as caught:
        read_placement(*arguments)
    assert wanted in str(caught.value)
