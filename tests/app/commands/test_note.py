"""`note`, `delete` and `list`: what is said of runs, and runs that go."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.dashboard.jobs.starts import Start, list_pending, note
from awqscope.diagnose.runs.notes import FILE, read_notes
from tests.help.runs import write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        write_run(tmp_path, name)
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_run_is_noted_and_its_notes_are_printed(runs: Path) -> None:
    path = runs / "one"
    assert invoke("note", path).stdout == "no name, tags or notes\n"
    options = ("--name", "second try", "--tag", "b", "--tag", "release", "--note", "see\nblock 5")
    said = invoke("note", path, *options).stdout
    notes = read_notes(path)
    time = notes.notes[0].time[:16].replace("T", " ")
    assert said == (f"name: second try\ntags: b, release\nnote 1, {time} UTC: see\n  block 5\n")
    assert invoke("note", path).stdout == said
    assert all(line in invoke("show", path).stdout for line in said.splitlines())
    told = json.loads(invoke("note", path, "--json").stdout)
    assert told == {"run": str(path), **notes.to_json()}
    taken = invoke("note", path, "--untag", "b", "--unnote", "1", "--name", "", "--archive").stdout
    assert taken == "tags: release\narchived\n"
    refused = invoke("note", path, "--archive", "--unarchive")
    assert refused.exit_code == 2 and "opposites" in refused.stderr
    assert invoke("note", path, "--untag", "b").exit_code == 2
    assert invoke("note", runs).exit_code == 2


def test_the_list_shows_names_and_tags_and_hides_what_is_archived(runs: Path) -> None:
    assert "name" not in invoke("list", runs).stdout.splitlines()[0]
    invoke("note", runs / "one", "--name", "the first", "--tag", "a", "--tag", "b")
    invoke("note", runs / "two", "--tag", "b", "--archive")
    listed = invoke("list", runs)
    head, *lines = listed.stdout.splitlines()
    assert head.split()[:3] == ["run", "name", "tags"]
    assert len(lines) == 1 and lines[0].startswith("one  the first  a, b")
    assert "1 archived run is left out; --all lists them" in listed.stderr
    assert "archived" not in invoke("list", runs, "--tag", "a").stderr

    def names(*options: str) -> list[str]:
        return sorted(run["name"] for run in json.loads(invoke("list", runs, *options).stdout))

    assert names("--json") == ["one"]
    assert names("--json", "--all") == ["one", "two"]
    assert names("--json", "--all", "--tag", "b") == ["one", "two"]
    assert names("--json", "--all", "--tag", "b", "--tag", "a") == ["one"]
    assert names("--json", "--tag", "q") == []
    assert "no run has the tag q" in invoke("list", runs, "--tag", "q").stderr
    (one,) = json.loads(invoke("list", runs, "--json").stdout)
    assert one["notes"] == read_notes(runs / "one").to_json()


def test_a_damaged_file_is_said_and_the_run_shown_all_the_same(runs: Path) -> None:
    (runs / "one" / FILE).write_text("{")
    listed, shown = invoke("list", runs), invoke("show", runs / "one")
    assert listed.exit_code == shown.exit_code == 0
    assert f"{FILE} cannot be read" in listed.stdout and f"{FILE} cannot be read" in shown.stdout


def test_a_note_without_text_is_an_empty_line(runs: Path) -> None:
    note = {"time": "2026-01-01T00:00:00+00:00", "text": ""}
    (runs / "one" / FILE).write_text(json.dumps({"schema": 1, "tags": [], "notes": [note]}))
    shown = invoke("show", runs / "one")
    assert shown.exit_code == 0
    assert "note 1, 2026-01-01 00:00 UTC:" in invoke("note", runs / "one").stdout


def test_nothing_is_deleted_without_yes(runs: Path) -> None:
    path = runs / "one"
    asked = invoke("delete", path)
    assert asked.exit_code == 2 and asked.stdout == ""
    assert "would be deleted: 11 files, " in asked.stderr and "tokens.parquet" in asked.stderr
    assert f"awqscope delete {path} --yes" in asked.stderr
    assert len(list(path.iterdir())) == 11
    start = Start("one", {}, "cpu", None, began=0, pid=1)
    note(runs, start)
    gone = invoke("delete", path, "--yes")
    assert gone.exit_code == 0 and f"{path}: deleted, 11 files" in gone.stdout
    assert not path.exists() and (runs / "two" / "run.json").exists()
    # Its start is over, and does not come back as one that never began.
    assert list_pending(runs) == []
    assert invoke("delete", path, "--yes").exit_code == 2
