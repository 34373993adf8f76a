"""The card of alternatives: what it draws of an answer, and of one that is damaged."""

import json
from typing import Any

import plotly.io

from awqscope.app.dashboard.sections.studies.alternatives import draw_answer, list_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.alternatives import make_answer, make_row, make_usual
from tests.help.runs import SAMPLE


def write(parts: list[Any]) -> str:
    """The parts as the page gets them."""
    return json.dumps(plotly.io.json.to_json_plotly([part for part in parts if part is not None]))


def test_an_answer_is_a_sentence_a_chart_and_tables() -> None:
    drawn = write(draw_answer(make_usual().to_json(), RunDirectory(SAMPLE)))
    assert "Surely better at no more bits: title of gptq." in drawn
    assert "KL of each block alone, on 2 windows" in drawn
    assert "awq-g128 was not measured" in drawn
    assert "title of mixed" in drawn


def test_what_is_of_another_recipe_is_not_drawn() -> None:
    other = {"scheme": "as it was", "widths": {"0.o": "8"}}
    rows = [make_row("uniform", 4.25, 0.2), make_row("mixed", 4.4, 0.05, stamp=other)]
    drawn = write(draw_answer(make_answer(rows).to_json(), RunDirectory(SAMPLE)))
    assert "title of mixed" not in drawn
    assert "mixed was not measured: the run's recipe has changed since" in drawn


def test_a_damaged_answer_is_said_to_be_one() -> None:
    answer = make_usual().to_json()
    del answer["rows"]
    assert "cannot be shown" in write(draw_answer(answer, RunDirectory(SAMPLE)))


def test_fields_are_those_of_the_command() -> None:
    from awqscope.app.dashboard.jobs.studies import KINDS

    names = {getattr(field, "name", None) or field.id["field"] for field in list_inputs("demo")}
    assert names == set(KINDS["alternatives"].options)
