"""What people say of a run: kept beside it, whole or not at all, also by two at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import (
    FILE,
    Change,
    Note,
    Notes,
    apply_change,
    change_notes,
    find_notes,
    read_notes,
)
from awqscope.mixedprec.errors import InputError
from tests.help.root import ROOT
from tests.help.runs import write_run

SOME = Notes(name="a", tags=("x", "y"), notes=(Note(time="t", text="first"),))
WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(write_run(tmp_path))


@pytest.mark.parametrize(
    ("change", "entries"),
    [
        (Change(name=" second "), {"name": "second"}),
        (Change(name=""), {"name": ""}),
        (Change(tags=("z", "x", "z")), {"tags": ("x", "y", "z")}),
        (Change(untags=("x",), tags=("w",)), {"tags": ("y", "w")}),
        (Change(note="two\nlines"), {"notes": (*SOME.notes, Note(time="now", text="two\nlines"))}),
        (Change(unnote=1), {"notes": ()}),
        (Change(archived=True), {"archived": True}),
        (Change(), {}),
    ],
)
def test_a_change_leaves_all_else(change: Change, entries: dict[str, Any]) -> None:
    assert apply_change(SOME, change, "now") == SOME.changed(**entries)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change(untags=("q",)), "it has no tag 'q': its tags are x and y"),
        (Change(tags=(" ",)), "the tag is empty"),
        (Change(tags=("a,b",)), "has a comma"),
        (Change(tags=("t" * 41,)), "41 characters: give at most 40"),
        (Change(tags=tuple(map(str, range(60)))), "62 tags are too many"),
        (Change(name="a\x1b[2J"), "cannot be shown"),
        (Change(name="two\nlines"), "cannot be shown"),
        (Change(note=""), "the note is empty"),
        (Change(unnote=2), "it has no note 2"),
    ],
)
def test_what_cannot_be_said_is_refused(change: Change, said: str) -> None:
    with pytest.raises(InputError) as refused:
        apply_change(SOME, change, "now")
    assert said in str(refused.value)


@given(st.lists(WORDS, max_size=5), st.lists(WORDS, max_size=5))
def test_tags_are_a_set_in_order(tags: list[str], more: list[str]) -> None:
    first = apply_change(Notes(), Change(tags=tags), "now")
    both = apply_change(first, Change(tags=more), "now")
    assert list(both.tags) == list(dict.fromkeys(tags + more))
    assert apply_change(both, Change(untags=both.tags), "now").tags == ()


def test_it_is_kept_beside_the_record_while_the_run_is_worked_on(run: RunDirectory) -> None:
    record = (run.path / "run.json").read_bytes()
    assert read_notes(run.path) == Notes()
    with run.lock():
        changed = change_notes(run, Change(name="a", tags=("t",), note="n", archived=True))
    assert read_notes(run.path) == changed
    assert (run.path / "run.json").read_bytes() == record
    kept = json.loads((run.path / FILE).read_text(encoding="utf-8"))
    assert set(kept) == {"schema", "name", "tags", "notes", "archived"} and kept["schema"] == 1
    assert change_notes(run, Change()) == changed


def test_two_who_note_at_once_lose_nothing(run: RunDirectory) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from awqscope.diagnose.runs.directory import RunDirectory; "
        "from awqscope.diagnose.runs.notes import Change, change_notes; "
        "[change_notes(RunDirectory(Path(sys.argv[1])), Change(note=f'{sys.argv[2]} {n}')) "
        "for n in range(15)]"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(run.path), name], cwd=ROOT)
        for name in "ab"
    ]
    assert [other.wait() for other in others] == [0, 0]
    said = [note.text for note in read_notes(run.path).notes]
    assert sorted(said) == sorted(f"{name} {n}" for name in "ab" for n in range(15))
    assert not list(run.path.glob("*.tmp"))


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b'{"schema": 2}', b'{"schema": 1, "tags": [3], "notes": []}', b"\xff"]
)
def test_a_damaged_file_is_said_and_left_as_it_is(run: RunDirectory, damage: bytes) -> None:
    (run.path / FILE).write_bytes(damage)
    found, said = find_notes(run.path)
    assert found == Notes() and FILE in said
    with pytest.raises(InputError, match="cannot be read"):
        change_notes(run, Change(name="a"))
    assert (run.path / FILE).read_bytes() == damage


def test_only_runs_are_noted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        change_notes(RunDirectory(tmp_path), Change(name="a"))
    assert list(tmp_path.iterdir()) == []
