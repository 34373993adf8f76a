"""Runs between the click and their first record: listed, stopped, forgotten, and never a ghost."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.jobs import processes
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.starts import LOGS, find_pending, list_pending
from awqscope.app.dashboard.sections.listed.rows import UNBEGUN, list_rows
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from tests.app.dashboard.jobs.test_runs import LOCAL, READ_ONLY, RECORD, call, create_app, wait_for
from tests.app.dashboard.test_server import find_links, find_type, make_client, read_text, show
from tests.help.requested import compare_request, run_request

WAITS = "import time; print('opening', flush=True); time.sleep(120)"
# Takes its time to end when it is asked to: until a file of that name is there.
LEAVES = """
import pathlib, signal, sys, time
leave = pathlib.Path(next(a[6:] for a in sys.argv if a.startswith("--out=")) + ".leave")
def stop(*_):
    while not leave.exists():
        time.sleep(0.01)
    sys.exit(143)
signal.signal(signal.SIGINT, stop)
print("opening", flush=True)
time.sleep(120)
"""
REFUSES = "import sys; sys.exit('awqscope: examples/demo is neither here nor there: look again')"
# Leaves a record, as a run that begins does, and ends.
WRITTEN = RECORD.changed(state="failed", created="2026", updated="").to_json()
BEGINS = (
    "import json, os, sys; out = next(a[6:] for a in sys.argv if a.startswith('--out=')); "
    f"os.makedirs(out); json.dump({WRITTEN!r}, open(out + '/run.json', 'w'))"
)


def start(root: Path, program: str, monkeypatch: pytest.MonkeyPatch, name: str = "mine") -> Jobs:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", program))
    jobs = Jobs(Store(root))
    jobs.start(run_request(model="org/m", name=name, windows=7, device="cpu", workers=2))
    return jobs


def row_of(root: Path, jobs: Jobs | None, name: str = "mine") -> dict[str, Any]:
    return next(row for row in list_rows(Store(root), jobs) if row["name"] == name)


def test_a_start_is_listed_at_once_and_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = start(tmp_path, LEAVES, monkeypatch)
    row = row_of(tmp_path, jobs)
    assert (row["state"], row["acts"], row["model"]) == ("starting", ["cancel"], "org/m")
    assert row_of(tmp_path, None)["acts"] == [], "a dashboard that only reads stops nothing"
    page, live = show(make_client(tmp_path), "/run/mine")
    assert live
    assert "Starting" in read_text(page)
    assert {"type": "cancel", "name": "mine"} in [
        found["id"] for found in find_type(page, "ConfirmDialogProvider")
    ]
    with pytest.raises(InputError, match="cancel it first"):
        jobs.dismiss("mine")
    # Another server, started since, can stop it as well.
    other = Jobs(Store(tmp_path))
    # The command itself is the first line.
    wait_for(lambda: jobs.log_tail("mine").endswith("opening"))
    other.cancel("mine")
    assert row_of(tmp_path, jobs)["state"] in ("starting", "stopping")
    (tmp_path / "mine.leave").touch()
    wait_for(lambda: not jobs.is_alive("mine"))
    assert list_rows(Store(tmp_path), jobs) == [], "what was asked to stop and did is gone"
    assert not list((tmp_path / LOGS).glob("*.json"))
    assert "No such run" in read_text(show(make_client(tmp_path), "/run/mine")[0])


def test_a_start_that_came_to_nothing_says_why_until_it_is_dismissed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = start(tmp_path, REFUSES, monkeypatch)
    wait_for(lambda: not jobs.is_alive("mine"))
    for _ in range(2):
        row = row_of(tmp_path, jobs)
        assert (row["state"], row["acts"]) == (UNBEGUN, ["dismiss"])
        assert row["verdict"] == "examples/demo is neither here nor there: look again."
    page, live = show(make_client(tmp_path), "/run/mine")
    assert not live
    assert "examples/demo is neither" in read_text(page), "a path keeps its letters"
    assert "/new?like=mine" in find_links(page)
    form = json.dumps(show(make_client(tmp_path), "/new", "?like=mine")[0])
    for value in ('"value": "org/m"', '"value": "mine"', '"value": 7', '"value": "cpu"'):
        assert value in form
    with pytest.raises(InputError, match="nobody works on mine"):
        (tmp_path / "mine").mkdir()
        RunDirectory(tmp_path / "mine").create(RECORD)
        jobs.cancel("mine")
    # The record is newer than the start: that is over, and comes back no more.
    assert row_of(tmp_path, jobs)["state"] == "stopped"
    (tmp_path / "mine" / "run.json").unlink()
    assert list_rows(Store(tmp_path), jobs) == []


def test_a_dismissed_start_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = start(tmp_path, REFUSES, monkeypatch)
    wait_for(lambda: not jobs.is_alive("mine"))
    app = create_app(Store(tmp_path), LOCAL)
    asked = {"runs-asked.data": {"name": "mine", "act": "dismiss", "asked": 1}}
    answer = call(app.server.test_client(), app, "runs-said", asked).json
    assert answer["sideUpdate"]["runs-grid"] == {"rowData": []}
    assert answer["response"]["live"] == {"disabled": True}
    assert list_pending(tmp_path) == []
    assert jobs.start(run_request(model="org/m", name="mine")) == "mine"
    wait_for(lambda: not jobs.is_alive("mine"))
    assert "runs-said" not in " ".join(create_app(Store(tmp_path), READ_ONLY).callback_map)


def test_a_run_that_began_is_no_start_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = start(tmp_path, BEGINS, monkeypatch)
    wait_for(lambda: not jobs.is_alive("mine"))
    assert find_pending(tmp_path, "mine") is None
    assert row_of(tmp_path, jobs)["state"] == "failed"
    page, _ = show(make_client(tmp_path), "/run/mine")
    assert "It did not begin" not in read_text(page)


def test_going_on_is_a_start_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunDirectory(tmp_path / "mine").create(RECORD.changed(device="cuda"))
    RunDirectory(tmp_path / "mine").update(state="failed")
    time.sleep(0.05)
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", WAITS))
    jobs = Jobs(Store(tmp_path))
    jobs.resume("mine")
    assert "--device=cuda" in jobs.log_tail("mine"), "another device computes otherwise"
    assert row_of(tmp_path, jobs)["state"] == "starting"
    page, live = show(make_client(tmp_path), "/run/mine")
    text = read_text(page)
    assert live
    assert "Starting" in text
    assert "Go on with it" not in text
    jobs.cancel("mine")
    wait_for(lambda: not jobs.is_alive("mine"))
    assert row_of(tmp_path, jobs)["state"] == "failed", "as it was before"
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", REFUSES))
    jobs.resume("mine")
    wait_for(lambda: not jobs.is_alive("mine"))
    text = read_text(show(make_client(tmp_path), "/run/mine")[0])
    assert "It did not go on" in text
    assert "neither here nor there" in text
    assert "Go on with it" in text
    jobs.dismiss("mine")
    assert "did not go on" not in read_text(show(make_client(tmp_path), "/run/mine")[0])


def test_notes_of_others_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / LOGS
    folder.mkdir()
    (folder / "torn.start.json").write_text("{")
    (folder / "odd.start.json").write_text('{"name": "other"}')
    whole = {"spec": {}, "device": "cpu", "workers": None, "began": 1, "pid": 1, "stopping": False}
    (folder / "a.start.json").write_text(json.dumps({**whole, "name": "../up"}))
    (folder / "b.start.json").write_text(json.dumps({**whole, "name": "b", "began": "soon"}))
    assert list_pending(tmp_path) == []
    assert find_pending(tmp_path, "../up") is None


def test_a_comparison_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PYTHON", (sys.executable, "-c", WAITS))
    jobs = Jobs(Store(tmp_path))
    assert jobs.start(compare_request(reference="org/m", candidate="org/m-GPTQ")) == "m-GPTQ"
    assert jobs.log_tail("m-GPTQ").startswith("$ awqscope compare --valid=wikitext2:test --out=")
    assert jobs.log_tail("m-GPTQ").splitlines()[0].endswith("/m-GPTQ -- org/m org/m-GPTQ")
    jobs.cancel("m-GPTQ")
    wait_for(lambda: not jobs.is_alive("m-GPTQ"))
