"""The card on a run's calibration: the answer in words, charts with tables, and the form."""

import json
from pathlib import Path
from typing import Any

from dash.development.base_component import Component

from awqscope.app.dashboard.components import Table
from awqscope.app.dashboard.jobs.moved import find_model
from awqscope.app.dashboard.jobs.studies import KINDS, look_at_study
from awqscope.app.dashboard.sections.studies.calibration import calibration_card, draw_answer
from awqscope.app.dashboard.urls import read_address
from awqscope.app.store import Store
from awqscope.app.words.studies.calibration import write_advice
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import Study
from tests.help.calibrated import make_advice
from tests.help.runs import write_run


def list_parts(part: Any) -> list[Any]:
    """A component and all that is in it."""
    inside = getattr(part, "children", None)
    children = inside if isinstance(inside, list | tuple) else [inside]
    return [part, *(one for child in children if child is not None for one in list_parts(child))]


def answer(**changes: Any) -> dict[str, Any]:
    """As it comes back from the disk."""
    return json.loads(json.dumps(make_advice(**changes).to_json()))


def test_an_answer_is_said_drawn_and_listed() -> None:
    parts = [one for part in draw_answer(answer()) for one in list_parts(part)]
    texts = [part for part in parts if isinstance(part, str)]
    assert set(write_advice(make_advice())) <= set(texts)
    assert sum(isinstance(part, Table) for part in parts) == 3
    assert sum(getattr(part, "role", None) == "figure" for part in parts) == 3


def test_charts_without_a_subject_are_left_out() -> None:
    advice = make_advice()
    kept = [each.to_json() for each in advice.calibrations if each.role == "count"]
    only = {"columns": [advice.columns[0].to_json()], "calibrations": kept}
    only |= {"pairs": [], "domains": []}
    parts = [one for part in draw_answer({**answer(), **only}) for one in list_parts(part)]
    assert sum(getattr(part, "role", None) == "figure" for part in parts) == 1


def test_an_answer_of_another_version_is_no_error() -> None:
    (said,) = draw_answer({"calib": 3})
    assert isinstance(said, Component) and "cannot be read" in str(said)


def test_the_form_asks_what_the_command_takes(tmp_path: Path) -> None:
    store, path = Store(tmp_path), write_run(tmp_path)
    kind, page = KINDS["calibrate"], read_address(f"/run/{path.name}", "")
    state = look_at_study(store, path.name, kind)
    assert calibration_card(state, store, page, None) is None
    shown = list_parts(calibration_card(state, store, page, find_model(store, path.name)))
    names = {getattr(part, "name", None) for part in shown}
    assert set(kind.options) <= names
    study = Study(RunDirectory(path), "calibrate", {})
    with study.hold():
        study.keep(make_advice().to_json())
    state = look_at_study(store, path.name, kind)
    shown = list_parts(calibration_card(state, store, page, None))
    assert write_advice(make_advice())[0] in shown
