"""Notes on a run's page: what a form asks for, and who may change anything."""

import json
from pathlib import Path

import pytest

from awqscope.app.dashboard.sections.notes import read_change
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import Change, change_notes
from tests.app.dashboard.test_server import make_client, show
from tests.help.runs import write_run

SHOWN = {"called": "a", "tags": "x, y", "archived": False}


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({}, Change(tags=[], untags=[])),
        ({"called": ""}, Change(name="", tags=[], untags=[])),
        ({"tags": "y, z,, "}, Change(tags=["z"], untags=["x"])),
        ({"note": " \n"}, Change(tags=[], untags=[])),
        ({"note": "n", "archived": True}, Change(tags=[], untags=[], note="n", archived=True)),
    ],
)
def test_only_what_was_changed_is_asked_for(values: dict[str, object], change: Change) -> None:
    assert read_change({**SHOWN, "note": "", **values}, SHOWN) == change


def test_who_may_only_read_sees_notes_and_no_form(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    change_notes(RunDirectory(path), Change(name="the first", note="look here"))
    drawn = json.dumps(show(make_client(tmp_path), "/run/sample")[0])
    assert "the first" in drawn and "look here" in drawn and "notes-keep" in drawn
    client = make_client(tmp_path, read_only=True)
    drawn = json.dumps(show(client, "/run/sample")[0])
    assert "the first" in drawn and "look here" in drawn and "notes-keep" not in drawn
    # Nor is there anything that would take what the form sends.
    answer = client.post(
        "/_dash-update-component",
        json={
            "output": "notes-said.children",
            "outputs": {"id": "notes-said", "property": "children"},
            "inputs": [
                {
                    "id": "notes-asked",
                    "property": "data",
                    "value": {"path": "/run/sample", "values": {"called": "b"}},
                }
            ],
            "state": [{"id": "notes-shown", "property": "data", "value": SHOWN}],
            "changedPropIds": ["notes-asked.data"],
        },
    )
    assert answer.status_code >= 400
    assert change_notes(RunDirectory(path), Change()).name == "the first"
