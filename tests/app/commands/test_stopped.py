"""A run that nobody works on any more is stopped, says every command and page, and how to go on."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from awqscope.app.commands import compare as compare_module
from awqscope.app.commands import run as run_module
from awqscope.app.dashboard.sections.listed.rows import list_rows
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.diagnose.runs.resuming import write_resuming
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from tests.help.browsing import change_record, copy_sample
from tests.help.root import ROOT
from tests.help.runs import make_record, parse_record


def begun(spec: RunSpec | CompareSpec, **changes: Any) -> AnyRecord:
    """The record of a run or a comparison that was just begun."""
    found = make_record(RunSpec(model="m", calib="c", valid="v"), **changes).to_json()
    found["spec"] = spec.to_json()
    if isinstance(spec, CompareSpec):
        hashes: dict[str, str] = {}
        candidate = {"path": "c", "format": "plain", "bits": {"16": 1}, "tokenizer": True}
        found |= {"kind": "compare", "candidate": {**candidate, "hashes": hashes}}
    return parse_record(found)


def ask(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """The sample as a kill in its sweep would have left it, in a directory to be quoted."""
    (tmp_path / "all my runs").mkdir()
    path = copy_sample(tmp_path / "all my runs", "it's [1]")
    stages = json.loads((path / "run.json").read_text())["stages"]
    stages = {"search": stages["search"], "sweep": {"state": "running"}}
    change_record(path, state="running", stages=stages, headline={}, directory=str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return RunDirectory(Path("all my runs") / "it's [1]")


@pytest.fixture(params=["killed", "interrupted by an earlier version"])
def stopped(request: pytest.FixtureRequest, run: RunDirectory) -> RunDirectory:
    if request.param != "killed":
        error = {"message": "interrupted", "remedy": "run the same command again: it resumes"}
        change_record(run.path, state="failed", error=error)
    return run


def test_every_face_says_stopped_and_the_same_command(
    stopped: RunDirectory, tmp_path: Path
) -> None:
    command = write_resuming(stopped.read(), stopped.path)
    assert command.startswith("awqscope run --calib=")
    assert shlex.split(command)[-2:] == ["--", "examples/demo"]
    code, said, _ = ask("show", stopped.path)
    assert code == 0
    assert "The run was stopped before its end (sweep); nothing is measured yet." in said
    assert f"go on with it: {command}\n" in said
    for refused in (
        ask("gate", stopped.path),
        ask("report", stopped.path, "-o", tmp_path / "report.html"),
    ):
        assert refused == (
            2,
            "",
            f"awqscope: {stopped.path} is not finished (it was stopped before its end): "
            f"go on with it: {command}\n",
        )
    code, said, _ = ask("list", "all my runs")
    _, line, below = said.splitlines()
    assert line.split()[:3] == ["it's", "[1]", "stopped"]
    assert below == f"it's [1]: go on with it: {command}"
    (entry,) = json.loads(ask("list", "all my runs", "--json")[1])
    assert (entry["state"], entry["resume"]) == ("stopped", command)
    assert ask("show", "all my runs") == ask("list", "all my runs")
    store = Store(Path("all my runs"))
    summary = store.summary("it's [1]")
    assert summary.state == "stopped"
    assert summary.record is not None
    assert {s: e.state for s, e in summary.record.stages.items()} == {
        "search": "done",
        "sweep": "stopped",
    }
    (row,) = list_rows(store)
    assert row["state"] == "stopped"


def test_a_run_at_work_is_running_everywhere(run: RunDirectory) -> None:
    with run.lock():
        assert run.look().state == Store(Path("all my runs")).summary("it's [1]").state
        assert run.look() == run.read()
        assert "The run is under way (sweep)" in ask("show", run.path)[1]
        assert "go on with" not in ask("show", run.path)[1] + ask("list", "all my runs")[1]
        for refused in (ask("gate", run.path), ask("report", run.path, "-o", "x.html")):
            assert "is not finished (a process is at it): wait until it is done" in refused[2]
    assert run.look().state == "stopped"


def test_a_run_that_ends_while_it_is_looked_at_is_done(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the record and the lock its process may write the one and let go of the other."""

    def end(there: RunDirectory) -> None:
        change_record(there.path, state="done")

    monkeypatch.setattr(RunDirectory, "holder", end)
    assert run.look().state == "done"


def test_what_was_measured_before_is_said(run: RunDirectory) -> None:
    sample = json.loads((ROOT / "reports/sample/run.json").read_text())
    stages = {**sample["stages"], "proof": {"state": "running"}}
    change_record(run.path, headline=sample["headline"], stages=stages)
    said = " ".join(ask("show", run.path)[1].split())
    assert "stopped before its end (proof); this is what it had measured. 4-bit AWQ costs" in said


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What `run` and `compare` would carry out."""
    seen: list[Any] = []
    monkeypatch.setattr(
        run_module, "carry_out", lambda spec, out, *rest: seen.append((spec, Path(out)))
    )
    monkeypatch.setattr(
        "awqscope.diagnose.stages.comparison.run_comparison",
        lambda spec, out, *rest: seen.append((spec, Path(out))) or RunDirectory(Path(out)),
    )
    monkeypatch.setattr(compare_module, "print_run", lambda path, as_json: None)
    yield seen


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(model="m", calib="c", valid="v"),
        RunSpec(
            model="-m [1]",
            calib="it's.txt",
            valid=("a b.txt", "-v.txt"),
            bits=3,
            rescue_bits=6,
            group_size=-1,
            symmetric=True,
            seq_len=64,
            windows=4,
        ),
        RunSpec(
            model="m",
            calib="c",
            valid="v",
            keep_fp16=("1.o", "2.o"),
            max_memory=12345,
            whole_blocks=True,
        ),
        CompareSpec(reference="m", candidate="c", valid="v"),
        CompareSpec(
            reference="m $HOME",
            candidate="-c",
            valid=("a", "b"),
            seq_len=64,
            z=2.5,
            chunk_windows=2,
        ),
    ],
)
def test_the_command_asks_for_the_same_run(
    spec: RunSpec | CompareSpec, taken: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "it's [1] $x"
    command = write_resuming(begun(spec, device="cpu"), out)
    code, _, said = ask(*shlex.split(command)[1:])
    assert code == 0, said
    assert taken == [(spec, out)]


def test_paths_relative_to_elsewhere_are_gone_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = tmp_path / "it's here"
    (began / "model").mkdir(parents=True)
    spec = RunSpec(model="model", calib="wikitext2", valid="wikitext2:test")
    record = begun(spec, directory=str(began))
    monkeypatch.chdir(tmp_path)
    command = write_resuming(record, Path("run"))
    go, _, rest = command.partition(" && ")
    assert shlex.split(go) == ["cd", str(began)]
    assert f"--out={tmp_path / 'run'}" in shlex.split(rest)
    monkeypatch.chdir(began)
    assert write_resuming(record, Path("run")).startswith("awqscope run ")
    # An id on the hub is the same from anywhere.
    elsewhere = begun(spec.change(model="org/model"), directory=str(began))
    monkeypatch.chdir(tmp_path)
    assert write_resuming(elsewhere, Path("run")).startswith("awqscope run ")


def test_a_run_of_a_version_with_other_options_is_left_to_it(run: RunDirectory) -> None:
    change_record(run.path, spec={**run.read().to_json()["spec"], "invented": 1})
    for command in ("gate", "show"):
        code, _, said = ask(command, run.path)
        assert code == 2 and len(said.splitlines()) == 1
        assert "the run was made by another version" in said
        assert said.endswith("use the version that made it\n")
