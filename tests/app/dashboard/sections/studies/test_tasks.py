"""The card of tasks: what it draws of an answer, and of one that is damaged."""

import json
from typing import Any

import plotly.io
import pytest

from awqscope.app.dashboard.jobs.studies import KINDS
from awqscope.app.dashboard.sections.studies.tasks import draw_answer, list_inputs
from awqscope.app.figures.studies.tasks import draw_tasks
from awqscope.app.words.studies.tasks import task_rows, write_finding
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.tasks.answer import Tasks
from awqscope.diagnose.studies.tasks.pairing import weigh_tasks
from tests.help.runs import SAMPLE
from tests.help.tasks import make_task, make_tasks, turn


def make_answer() -> Tasks:
    """Two tasks of two models, one of which surely lost, and one that cannot be paired."""
    bad, good = turn(400, 60, 2), turn(400, 2, 2)
    return make_tasks(
        make_task("bad<b>", uniform=bad["mixed"], **bad),
        make_task("good", uniform=good["reference"], **good),
        make_task("loss", metric="nats", higher=False, reference=[2.0, 1.5], mixed=[2.5, 1.0]),
        make_task("alone", mixed=[1, 0]),
    )


def write(parts: list[Any]) -> str:
    """The parts as the page gets them."""
    return json.dumps(plotly.io.json.to_json_plotly([part for part in parts if part is not None]))


def test_an_answer_is_a_sentence_a_chart_and_a_table() -> None:
    drawn = write(draw_answer(make_answer().to_json(), RunDirectory(SAMPLE)))
    assert "The mixed model is surely worse on bad" in drawn
    assert "Not paired: alone was not run on reference." in drawn
    assert "By lm-eval 0.4.13" in drawn


def test_rows_are_what_was_paired() -> None:
    weighed, failed = weigh_tasks(make_answer())
    rows = {(row["task"], row["model"]): row for row in task_rows(weighed)}
    lost = rows["bad<b>, acc", "mixed"]
    assert (lost["worse"], lost["better"], lost["samples"]) == ("60", "2", "400")
    assert lost["gained"].startswith("−14.50 [−18.") and lost["adjusted"] == "< 0.001"
    same = rows["good, acc", "uniform"]
    assert (same["worse"], same["gained"][:5], same["p"]) == ("0", "+0.00", "1")
    # Of what is better where it is less, a higher score is worse and reads as what it is.
    nats = rows["loss, nats", "mixed"]
    assert (nats["reference"], nats["score"]) == ("1.7500", "1.7500")
    assert (nats["worse"], nats["better"]) == ("1", "1")
    assert failed == ["alone was not run on reference"]
    assert write_finding(weighed)[0].startswith("The uniform model is surely worse on bad<b> and")


def test_what_gained_is_right_of_zero() -> None:
    weighed, _ = weigh_tasks(make_answer())
    figure = draw_tasks(weighed)
    mixed = next(trace for trace in figure.data if trace.name == "mixed")
    assert mixed.x[0] == pytest.approx(-14.5) and mixed.y[0] == "bad&lt;b&gt;"
    drop = weighed[0].pair.bound()
    assert mixed.error_x.array[0] > 0 and drop.value == 0.145


def test_a_damaged_answer_is_said_to_be_one() -> None:
    answer = make_answer().to_json()
    del answer["tasks"]
    assert "cannot be shown" in write(draw_answer(answer, RunDirectory(SAMPLE)))


def test_fields_are_those_of_the_command() -> None:
    names = {field.name for field in list_inputs("demo")}
    assert names == set(KINDS["tasks"].options)
