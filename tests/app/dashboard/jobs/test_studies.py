"""Studies started from a page: the command, how each stands, and what is refused."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.jobs import studies
from awqscope.app.dashboard.jobs.processes import PYTHON
from awqscope.app.dashboard.jobs.studies import (
    StudyKind,
    look_at_study,
    start_study,
    stop_study,
    study_command,
)
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import Study
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.locks import take_lock
from tests.help.runs import write_run

KIND = StudyKind(
    "probe",
    of_block=True,
    options={"windows": "--windows", "also": "--calib-also", "fast": "--fast"},
)


def test_a_form_becomes_a_command() -> None:
    values: dict[str, Any] = {"windows": "4", "also": "a.txt\n\nb.txt", "fast": True, "other": "x"}
    assert study_command(KIND, "/runs/a", 5, values, "/models/b") == [
        *PYTHON,
        "probe",
        "--windows=4",
        "--calib-also=a.txt",
        "--calib-also=b.txt",
        "--fast",
        "--model=/models/b",
        "--",
        "/runs/a",
        "5",
    ]
    assert study_command(KIND, "/runs/a", None, {"windows": "", "fast": False}, None) == [
        *(*PYTHON, "probe", "--", "/runs/a"),
    ]


@pytest.mark.parametrize("value", ["a\x00b", "a" * 5000])
def test_what_no_field_holds_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="cannot be given"):
        study_command(KIND, "/runs/a", 5, {"windows": value}, None)


def test_how_a_study_stands(tmp_path: Path) -> None:
    store, path = Store(tmp_path), write_run(tmp_path)
    study = Study(RunDirectory(path), "probe-5", {"windows": 4})

    def state() -> str:
        return look_at_study(store, path.name, KIND, 5).state

    assert state() == "absent"
    (path / "studies").mkdir()
    log = path / "studies" / "probe-5.log"
    with open(log, "w") as said:
        take_lock(said)
        said.write("$ awqscope probe\nsearching: 40%\n")
        said.flush()
        assert state() == "running"
    assert state() == "failed"
    with study.hold():
        study.keep({"found": 1})
    found = look_at_study(store, path.name, KIND, 5)
    assert (found.state, found.answer, found.asked["windows"]) == ("done", {"found": 1}, 4)
    assert found.made == json.loads(study.file.read_text())["made"]
    # What was asked anew and refused is said, and the answer stays.
    log.write_text("awqscope: 99 windows are not there; give at most 8\n")
    found = look_at_study(store, path.name, KIND, 5)
    assert (found.state, found.answer) == ("failed", {"found": 1})
    # What a terminal measured since is done.
    with study.hold():
        assert state() == "running"
        study.keep({"found": 2})
    assert state() == "done"


def test_it_is_stopped_before_it_has_opened_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = Store(tmp_path), write_run(tmp_path)
    waiting = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(studies, "study_command", lambda *_: waiting)
    start_study(store, path.name, KIND, 5, {})
    assert look_at_study(store, path.name, KIND, 5).state == "running"
    stop_study(store, path.name, KIND, 5)
    for _ in range(200):
        if look_at_study(store, path.name, KIND, 5).state != "running":
            break
        time.sleep(0.05)
    assert look_at_study(store, path.name, KIND, 5).state == "failed"
