"""Tasks on a Ray cluster: two workers of one machine. `tests/whole/test_ray.py` runs it in a
process of its own."""

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from awqscope.diagnose.machine import cluster as cluster_module
from awqscope.diagnose.machine.cluster import Cluster, open_cluster
from awqscope.diagnose.machine.tasks import Placement, Workers
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.stages import pipeline
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.errors import InputError
from tests.help.counted import Counted, fail, refuse, small_task, write_file
from tests.help.whole_runs import assert_equal_runs, measuring_spec


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A cluster of two workers with a thread each, away from any other."""
    placement = Placement(workers=2, ray="local")
    with open_cluster(placement, RunDirectory(tmp_path_factory.mktemp("ray")), 1) as found:
        yield found


def test_a_worker_that_is_killed_costs_its_task_alone(
    cluster: Cluster,
    make_model: Callable[..., Path],
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert (cluster.count, cluster.sharing, cluster.here) == (2, 2, False)
    spec = measuring_spec(make_model, text_file)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = run_pipeline(spec, tmp_path / "alone", lambda *event: None)
    log, victim = tmp_path / "log", "chunk 1 of the sweep"
    counted = Counted(cluster, log, victim)
    monkeypatch.setattr(
        pipeline,
        "open_workers",
        lambda *_: contextlib.nullcontext(counted),
    )
    run = run_pipeline(spec, tmp_path / "run", lambda *event: None)
    begun = Counter(log.read_text().split("\n")[:-1])
    assert begun.pop(victim) == 2
    assert set(begun.values()) == {1}
    assert {f"the search of block {n}" for n in range(4)} < begun.keys()
    assert_equal_runs(run, alone)


def test_what_sigterm_does_stays(cluster: Cluster) -> None:
    """A run that is asked to stop says so and can go on; Ray's own answer is to exit."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_errors_come_back_whole(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        cluster.run([small_task("a", refuse)], lambda done: None)
    assert (caught.value.what, caught.value.remedy) == ("the text holds nothing", "give another")
    with pytest.raises(ZeroDivisionError, match="by nought"):
        cluster.run([small_task("a", fail)], lambda done: None)
    works = [partial(write_file, tmp_path / str(n), f"task {n}") for n in range(5)]
    told: list[int] = []
    cluster.run([small_task(f"task {n}", work) for n, work in enumerate(works)], told.append)
    assert told == [1, 2, 3, 4, 5]
    assert [(tmp_path / str(n)).read_text() for n in range(5)] == [
        f"task {n} on cpu" for n in range(5)
    ]


def test_a_node_must_see_the_run_and_hold_the_same_libraries(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Joined a second time, through the connection that there is."""
    placement, run = Placement(ray="auto"), RunDirectory(tmp_path)
    with open_cluster(placement, run, 1) as joined:
        assert joined.count == 2
    assert not run.work.exists()
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "write_text", lambda path, text: None)
        with pytest.raises(InputError, match="does not see"), open_cluster(placement, run, 1):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "CHECK_SECONDS", 0)
        with pytest.raises(InputError, match="did not answer"), open_cluster(placement, run, 1):
            pass
    monkeypatch.setattr(cluster_module, "describe_versions", lambda: {"torch": "1.0"})
    with (
        pytest.raises(InputError, match=r"has torch .*, not 1\.0"),
        open_cluster(placement, run, 1),
    ):
        pass


def test_a_cluster_without_room_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    placement = Placement(("cuda:0",), ray="auto")
    with (
        pytest.raises(InputError, match="no node of the Ray cluster auto has a GPU"),
        open_cluster(placement, RunDirectory(tmp_path), 1),
    ):
        pass
