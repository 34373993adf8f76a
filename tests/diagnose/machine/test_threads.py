"""How many threads compute, and how they wait: decided from what is read of the machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from awqscope.app.command_line.common import begin_computing
from awqscope.diagnose.entries.threads import Threads
from awqscope.diagnose.machine import threads as threads_module
from awqscope.diagnose.machine.tasks import Placement, computing_with
from awqscope.diagnose.machine.threads import (
    PASSIVE,
    POLICY,
    SPINS,
    THREADS,
    Cores,
    choose_threads,
    keep_threads,
    read_cores,
    read_quota,
    wait_passively,
    write_threads,
)
from awqscope.diagnose.machine.workers import count_sharing, open_workers
from awqscope.diagnose.proof import prove as prove_module
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.stages.pipeline import plan_pipeline, run_pipeline
from tests.help.counted import small_task
from tests.help.root import ROOT
from tests.help.whole_runs import assert_equal_runs, measuring_spec

TWO = Cores(machine=2, allowed=2)
LOAD_8 = Cores(machine=2, allowed=2, load=8.0)
SPINS_AT_8 = Cores(machine=2, allowed=2, load=8.0, gives_way=False)
SPINS_AT_18 = Cores(machine=4, allowed=4, load=1.8, gives_way=False)


@pytest.mark.parametrize(
    ("cores", "processes", "said"),
    [
        (TWO, 1, "2 threads: 2 cores"),
        (TWO, 2, "1 thread for each of 2 processes: 2 cores"),
        (TWO, 99, "1 thread for each of 99 processes: 2 cores"),
        (Cores(7, 7), 2, "3 threads for each of 2 processes: 7 cores"),
        (Cores(64, 64), None, "1 thread a task: 64 cores"),
        # What the system allows: a part of a core more is worth a thread more.
        (Cores(64, 64, quota=0.5), 1, "1 thread: 0.5 cores by its control group's quota"),
        (Cores(64, 64, quota=1.5), 1, "2 threads: 1.5 cores by its control group's quota"),
        (Cores(64, 4, quota=9.0), 1, "4 threads: 4 cores of 64 allowed"),
        (Cores(64, 1), 1, "1 thread: 1 core of 64 allowed"),
        # Threads that give way take their share beside other work.
        (LOAD_8, 1, "2 threads: 2 cores, shared with other work (load 8.0)"),
        (Cores(2, 2, load=0.4), 1, "2 threads: 2 cores"),
        # Those that spin need a core each.
        (SPINS_AT_8, 1, "1 thread: 2 cores, of which other work takes 2.0"),
        (Cores(2, 2, load=1.8, gives_way=False), 1, "1 thread: 2 cores, of which other work takes "
         "1.8"),
        (SPINS_AT_18, 1, "2 threads: 4 cores, of which other work takes 1.8"),
        (SPINS_AT_18, 2, "1 thread for each of 2 processes: 4 cores, of which other work takes "
         "1.8"),
        (Cores(2, 2, load=0.4, gives_way=False), 1, "2 threads: 2 cores"),
        # Other work that has cores elsewhere takes none of ours.
        (Cores(64, 64, quota=2.0, load=30.0, gives_way=False), 1,
         "2 threads: 2 cores by its control group's quota"),
        # What the user says holds, whatever the machine does.
        (Cores(2, 2, load=8.0, named=3, gives_way=False), 1, "3 threads: OMP_NUM_THREADS is set"),
        (Cores(64, 64, quota=0.5, named=4), 2, "4 threads for each of 2 processes: "
         "OMP_NUM_THREADS is set"),
        (Cores(2, 2, named=4), None, "4 threads a task: OMP_NUM_THREADS is set"),
    ],
)  # fmt: skip
def test_what_is_chosen_and_said(cores: Cores, processes: int | None, said: str) -> None:
    assert write_threads(choose_threads(cores, processes), processes) == said


def test_a_process_that_works_alone_has_all_cores() -> None:
    assert choose_threads(Cores(8, 8), 4).alone == 8
    assert choose_threads(Cores(8, 8), None).alone == 8
    assert choose_threads(Cores(8, 8, named=3), 4).alone == 3


def test_a_run_keeps_its_threads() -> None:
    begun = Threads(each=3, alone=6, reason="6 cores")
    kept = keep_threads(begun, SPINS_AT_8)
    assert (kept.each, kept.alone) == (3, 6)
    assert write_threads(kept) == "3 threads: as the run was begun with"
    assert keep_threads(begun, Cores(2, 2, named=3)) == kept
    said = write_threads(keep_threads(begun, Cores(2, 2, named=1)))
    assert said.endswith("begun with, not the 1 of OMP_NUM_THREADS: its numbers depend on it")


def test_who_shares_the_cores() -> None:
    assert count_sharing(Placement()) == 1
    assert count_sharing(Placement(workers=3)) == 3
    assert count_sharing(Placement(("cuda:0", "cuda:1"))) == 2
    assert count_sharing(Placement(workers=3, ray="local")) == 3
    assert count_sharing(Placement(ray="local")) is None
    assert count_sharing(Placement(workers=3, ray="host:1")) is None


def write_all(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


NEW, OLD = "sys/fs/cgroup", "sys/fs/cgroup/cpu"
ABOVE = {"proc/self/cgroup": "0::/a/b\n", f"{NEW}/a/cpu.max": "150000 100000\n"}
VERSION_1 = {
    "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/c\n0::/\n",
    f"{OLD}/c/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{NEW}/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "0::/\n", f"{NEW}/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{NEW}/cpu.max": "50000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{NEW}/cpu.max": ""}, None),
        ({"proc/self/cgroup": "0::/\n", f"{NEW}/cpu.max": "1 0\n"}, None),
        # Groups above it bind as well.
        (ABOVE, 1.5),
        ({**ABOVE, f"{NEW}/a/b/cpu.max": "max 100000\n"}, 1.5),
        ({**ABOVE, f"{NEW}/a/b/cpu.max": "300000 100000\n"}, 1.5),
        ({**ABOVE, f"{NEW}/a/b/cpu.max": "25000 50000\n"}, 0.5),
        # A container's own group stands in the place of the tree.
        ({"proc/self/cgroup": "0::/host/pod\n", f"{NEW}/cpu.max": "200000 100000\n"}, 2.0),
        ({"proc/self/cgroup": "0::/../other\n", f"{NEW}/cpu.max": "200000 100000\n"}, 2.0),
        ({**VERSION_1, f"{OLD}/c/cpu.cfs_quota_us": "50000\n"}, 0.5),
        ({**VERSION_1, f"{OLD}/c/cpu.cfs_quota_us": "-1\n"}, None),
        ({**VERSION_1, f"{NEW}/m/cpu.max": "1 1\n"}, None),
    ],
)
def test_quotas_are_read_of_both_versions(
    files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    write_all(tmp_path, files)
    assert read_quota(tmp_path) == quota


def test_what_is_read_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_all(tmp_path, ABOVE)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (8.0, 1.0, 1.0))
    for name in (THREADS, POLICY, SPINS):
        monkeypatch.delenv(name, raising=False)
    assert read_cores(tmp_path) == Cores(64, 3, 1.5, 8.0, None, gives_way=False)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "getloadavg", lambda: (_ for _ in ()).throw(OSError))
    assert (read_cores(tmp_path).allowed, read_cores(tmp_path).load) == (64, 0.0)
    for text, named in (("", None), ("no", None), ("0", None), ("4", 4), ("2,1", 2)):
        monkeypatch.setenv(THREADS, text)
        assert read_cores(tmp_path).named == named
    for policy, spins, gives_way in (
        (" Passive", None, True),
        ("passive", "0", True),
        ("passive", "1000", False),
        ("active", None, False),
    ):
        monkeypatch.setenv(POLICY, policy)
        monkeypatch.delenv(SPINS, raising=False)
        if spins:
            monkeypatch.setenv(SPINS, spins)
        assert read_cores(tmp_path).gives_way is gives_way


def test_threads_are_told_how_to_wait_before_torch_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, str] = {}
    monkeypatch.setattr(threads_module.os, "environ", told)
    wait_passively()
    assert told == {}, "torch is imported already"
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    wait_passively()
    assert told == {POLICY: PASSIVE}
    for set_by_user in ({POLICY: "active"}, {SPINS: "100"}):
        told.clear()
        told.update(set_by_user)
        wait_passively()
        assert told == set_by_user


def load_openmp(*before: str, **variables: str) -> str:
    """What OpenMP says that it has read as torch is imported after these lines."""
    kept = {k: v for k, v in os.environ.items() if k not in (THREADS, POLICY, SPINS)}
    return subprocess.run(
        [sys.executable, "-c", "\n".join((*before, "import torch"))],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stderr


def test_the_command_tells_openmp_in_time() -> None:
    """Of GNU's, as torch has it on Linux. It calls the policy passive where nobody set one, too:
    what counts is for how long a thread spins before it gives its core back."""
    if SPINS not in load_openmp():
        pytest.skip("another OpenMP")
    begun = (
        "import sys; from awqscope.app import cli",
        "sys.argv = ['awqscope', '--help']",
        "try: cli.main()",
        "except SystemExit: pass",
        "assert 'torch' not in sys.modules",
    )
    at_once = f"{SPINS} = '0'"
    assert at_once not in load_openmp()
    assert at_once in load_openmp(*begun)
    assert at_once not in load_openmp(*begun, OMP_WAIT_POLICY="active")


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), computing_with(before + 2):
        assert torch.get_num_threads() == before + 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_run_that_goes_on_ends_as_if_it_had_not_stopped(
    make_model: Callable[..., Path],
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Begun with three threads, gone on with on a machine that would choose one: every process of
    it, the proof's too, has as many as it was begun with."""
    spec = measuring_spec(make_model, text_file)
    monkeypatch.setenv(THREADS, "3")
    whole = run_pipeline(spec, tmp_path / "whole", lambda *event: None)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "sweep":
            raise KeyboardInterrupt

    notes: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(spec, tmp_path / "run", stop, on_note=notes.append)
    assert notes[-1] == "3 threads: OMP_NUM_THREADS is set"
    monkeypatch.setenv(THREADS, "1")
    used: list[int] = []

    def watch(stage: str, done: int, total: int) -> None:
        used.append(torch.get_num_threads())

    # Planned as it will be carried out, and nothing is changed by it.
    plan_pipeline(spec, tmp_path / "run", on_note=notes.append)
    run = run_pipeline(spec, tmp_path / "run", watch, on_note=notes.append)
    assert set(used) == {3}
    told = "3 threads: as the run was begun with, not the 1 of OMP_NUM_THREADS"
    assert [note.startswith(told) for note in notes[-2:]] == [True, True]
    assert run.read().threads == Threads(each=3, alone=3, reason="OMP_NUM_THREADS is set")
    assert_equal_runs(run, whole)
    # The proof's process begins like this, whose own choice would be one.
    monkeypatch.setattr(prove_module, "prove", lambda *_, **__: used.append(-count_now()))
    monkeypatch.setattr(prove_module, "prove_other", lambda *_, **__: used.append(-count_now()))
    other = ["--model=m", "--recipe=r", "--checkpoint=c", "--out=o"]
    with computing_with(2):
        for arguments in ([], other):
            monkeypatch.setattr(sys, "argv", ["prove", str(run.path), *arguments])
            prove_module.main()
    assert used[-2:] == [-3, -1]


def count_now() -> int:
    return torch.get_num_threads()


def write_threads_used(path: Path, device: torch.device, on_step: Callable[[int], None]) -> None:
    """A task's work: say how many threads compute it, and how they were told to wait."""
    path.write_text(f"{count_now()} {os.environ.get(POLICY)}")


def test_workers_compute_as_they_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(POLICY, PASSIVE)
    run, threads = RunDirectory(tmp_path / "run"), Threads(each=3, alone=4, reason="")
    before = count_now()
    with open_workers(Placement(workers=2), run, threads) as workers:
        # This process gives the numbers that they would.
        assert count_now() == 3
        work = partial(write_threads_used, tmp_path / "told")
        workers.run([small_task("a", work)], lambda done: None)
    assert (tmp_path / "told").read_text() == "3 passive"
    with open_workers(Placement(), run, threads):
        assert count_now() == 3
    assert count_now() == before


def test_a_command_that_goes_on_with_no_run_chooses_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(THREADS, "3")
    with computing_with(1):
        begin_computing()
        assert count_now() == 3
