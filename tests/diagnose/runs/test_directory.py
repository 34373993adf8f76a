"""The run directory: whole files only, one owner at a time, and honest about what it is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from awqscope.diagnose.runs.directory import ProgressLog, RunDirectory
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import replace_file
from tests.help.runs import change_record, make_record

SPEC = RunSpec(model="m", calib="c", valid="v", max_memory=1)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    found.create(make_record(SPEC))
    return found


def test_stages_and_updates(run: RunDirectory) -> None:
    assert not run.is_done("sweep")
    run.mark("sweep", "running")
    assert not run.is_done("sweep")
    run.mark("sweep", "done", seconds=1.0)
    assert run.is_done("sweep")
    assert run.read().stages["sweep"].seconds == 1.0


def test_another_spec_is_named(run: RunDirectory) -> None:
    run.check_spec(SPEC.change(max_memory=2, chunk_windows=7))
    with pytest.raises(InputError, match="its bits is 4, not 3"):
        run.check_spec(SPEC.change(bits=3))
    with pytest.raises(InputError, match="holds another run"):
        run.check_spec(CompareSpec(reference="m", candidate="c", valid="v"))


def test_a_run_of_a_version_without_an_option_goes_on_as_it_was(run: RunDirectory) -> None:
    spec = run.read().to_json()["spec"]
    for later in ("dtype", "trust_remote_code"):
        del spec[later]
    change_record(run.path, spec=spec)
    run.check_spec(SPEC)
    with pytest.raises(InputError, match="its dtype is 'auto', not 'bfloat16'"):
        run.check_spec(SPEC.change(dtype="bfloat16"))


def test_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and holds no run"):
        RunDirectory(tmp_path).check_free()
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_other_schemas_and_damage(run: RunDirectory, tmp_path: Path) -> None:
    record = run.path / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 99}))
    with pytest.raises(InputError, match="run of schema 99"):
        run.read()
    record.write_text('{"schema": 1, "sta')
    with pytest.raises(InputError, match="cannot be read"):
        run.read()
    with pytest.raises(InputError, match="holds no run"):
        RunDirectory(tmp_path / "nowhere").read()


def test_second_process_is_refused_with_the_first_ones_pid(run: RunDirectory) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from awqscope.diagnose.runs.directory import RunDirectory\n"
        "from awqscope.mixedprec.errors import InputError\n"
        "try:\n  RunDirectory(Path(sys.argv[1])).lock().__enter__()\n"
        "except InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    with run.lock():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()}" in said
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_progress_survives_a_torn_line(run: RunDirectory) -> None:
    (run.path / "progress.jsonl").write_text('{"stage": "search", "do')
    seen = []
    log = ProgressLog(run, lambda *event: seen.append(event))
    log("search", 1, 4)
    log("search", 2, 4)
    lines = (run.path / "progress.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines[1:])
    assert (first["done"], first["eta"]) == (1, None)
    assert second["eta"] >= 0
    assert seen == [("search", 1, 4), ("search", 2, 4)]


def test_failed_writes_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replace_file(path) as temporary:
        temporary.write_text("new, but")
        raise RuntimeError("the writer fails")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
