"""The card of a block's causes."""

import json
from pathlib import Path
from typing import Any

from plotly.utils import PlotlyJSONEncoder

from awqscope.app.dashboard.jobs.studies import KINDS, look_at_study, study_command
from awqscope.app.dashboard.sections.studies.why import draw_answer, why_card
from awqscope.app.dashboard.urls import Page
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.causes.answer import study_of
from tests.help.caused import make_answer, make_finding
from tests.help.runs import write_run


def text_of(part: Any) -> str:
    return json.dumps(part, cls=PlotlyJSONEncoder, ensure_ascii=False)


def test_the_card_shows_what_the_run_keeps(tmp_path: Path) -> None:
    store, path = Store(tmp_path), write_run(tmp_path)
    page, kind = Page("block", path.name, 5), KINDS["why"]
    study = study_of(RunDirectory(path), 5, None)
    assert why_card(look_at_study(store, path.name, kind, 5), store, page, None) is None
    with study.hold():
        study.keep(make_answer())
    shown = text_of(why_card(look_at_study(store, path.name, kind, 5), store, page, None))
    assert "No cause stands out" in shown and "mlp.down_proj" in shown
    assert "/tokens?window=3" in shown


def test_every_chart_has_its_table_and_its_name() -> None:
    finding = make_finding("head", role="v", heads=[0], numbers={"times": 9.0})
    parts = draw_answer(make_answer(findings=[finding.to_json()]), "a run")
    shown = text_of(parts)
    assert shown.count('"role": "figure"') == shown.count("see the table") == 6
    assert shown.count('"Table"') >= 6
    assert "62% (58% to 66%)" in shown


def test_an_answer_of_another_version_is_said_to_be_one() -> None:
    assert "Another version" in text_of(draw_answer({"block": 5}, "a run"))


def test_the_form_becomes_the_command() -> None:
    command = study_command(KINDS["why"], "/runs/a", 5, {"windows": "6"}, None)
    assert command[-5:] == ["why", "--windows=6", "--", "/runs/a", "5"]
