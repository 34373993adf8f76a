"""The card of int8 inputs on a run's page, and its command from there."""

from pathlib import Path

import pytest

from awqscope.app.dashboard.jobs.studies import KINDS, study_command
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.int8_inputs.answer import INT8, LLM_INT8
from awqscope.diagnose.studies.study import Study
from tests.app.dashboard.test_server import find_type, make_client, read_text, show
from tests.help.int8 import make_activations, make_measured
from tests.help.runs import write_run

TITLE = "Which blocks refuse int8 activations"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_run(tmp_path)
    return tmp_path


def keep(root: Path, answer: dict[str, object]) -> None:
    study = Study(RunDirectory(root / "sample"), "activations", {})
    with study.hold():
        study.keep(answer)


def test_a_page_offers_what_was_not_measured(root: Path) -> None:
    client = make_client(root)
    page, _ = show(client, "/run/sample")
    assert TITLE in read_text(page)
    [select] = [each for each in find_type(page, "Select") if each["name"] == "method"]
    assert [each["value"] for each in select["data"]][:1] == [INT8]
    keep(root, make_activations(make_measured(INT8, {3})).to_json())
    page, _ = show(client, "/run/sample")
    assert "block 3 refuses it" in read_text(page)
    assert "Block 5 refuses 4-bit weights" in read_text(page)
    [select] = [each for each in find_type(page, "Select") if each["name"] == "method"]
    assert select["value"] == LLM_INT8


def test_what_is_no_answer_is_asked_for_again(root: Path) -> None:
    keep(root, {"methods": "none"})
    text = read_text(show(make_client(root), "/run/sample")[0])
    assert TITLE in text and "refuses 4-bit weights" not in text


def test_a_form_becomes_the_command() -> None:
    given = {"method": LLM_INT8, "windows": 2}
    command = study_command(KINDS["activations"], "/runs/a", None, given, None)
    assert command[-5:] == ["activations", "--method=llm.int8", "--windows=2", "--", "/runs/a"]
