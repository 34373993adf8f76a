"""The card of what would help a block."""

import json
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.jobs.studies import KINDS, look_at_study
from awqscope.app.dashboard.sections.studies.probe import (
    Editable,
    draw_answer,
    list_fields,
    list_points,
    probe_card,
)
from awqscope.app.dashboard.urls import link, read_address
from awqscope.app.figures.studies.probes import draw_probe, find_unbeaten
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import Grouped
from tests.help.probed import keep_probe, make_measured, make_probe
from tests.help.runs import write_run


def drawn(part: Any) -> str:
    """A part of a page as the browser gets it."""
    return json.dumps(part, default=lambda each: each.to_plotly_json(), ensure_ascii=False)


def test_its_fields_are_those_of_the_command() -> None:
    names = {field.name for field in list_fields()}
    assert names == KINDS["probe"].options.keys()


def test_a_recipe_is_one_click_away(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    keep_probe(RunDirectory(path), make_probe(5))
    store = Store(tmp_path)
    page = read_address(f"/run/{path.name}/block/5", "")
    state = look_at_study(store, path.name, KINDS["probe"], 5)
    text = drawn(probe_card(state, store, page, None))
    # The run's recipe has 5.qkv and 5.o at 8 bits.
    assert link("recipe", path.name, bits="5.qkv:4") in text
    assert link("recipe", path.name, bits="5.gate_up:8,5.down:8") in text
    assert text.count("Make a recipe") == 2
    # The page offers no groups that are not scored.
    assert "awqscope probe RUN 5 --apply groups-32" in text
    assert "awqscope run --symmetric" in text and "no option of a run" in text


def test_groups_that_are_scored_are_one_click_away_too(tmp_path: Path) -> None:
    own = load_recipe(write_run(tmp_path) / "recipe.json")
    editable = Editable(own, [4, Grouped(4, 32), 8, 16])
    text = drawn(draw_answer(make_probe(5).to_json(), run="sample", editable=editable))
    widths = ",".join(f"5.{kind}:4x32" for kind in ("qkv", "o", "gate_up", "down"))
    assert link("recipe", "sample", bits=widths) in text


def test_a_run_without_a_recipe_has_none_to_make(tmp_path: Path) -> None:
    answer = make_probe(5).to_json()
    assert "Make a recipe" not in drawn(draw_answer(answer, run="sample", editable=None))


def test_an_answer_of_another_version_is_told() -> None:
    [said] = draw_answer({"block": 5}, run="sample", editable=None)
    assert "another version" in drawn(said)


def test_the_chart_has_every_alternative_with_its_interval() -> None:
    probe = make_probe(5)
    figure = draw_probe(list_points(probe))
    assert [trace.name for trace in figure.data] == ["helps", "not sure", "worse than nothing"]
    assert sum(len(trace.x) for trace in figure.data) == len(probe.alternatives)
    for trace in figure.data:
        assert trace.error_y.array == pytest.approx([0.001] * len(trace.x))
        assert trace.error_y.arrayminus == pytest.approx([0.001] * len(trace.x))
    # Groups of 32 cost fewer bytes than o at 8 bits; half the calibration costs none.
    named = [text for trace in figure.data for text in trace.text if text]
    assert sorted(named) == ["block-8", "groups-32", "half-calibration", "o-8"]


def test_what_is_beaten_has_no_name() -> None:
    points = list_points(
        make_probe(
            5,
            alternatives=[
                make_measured("best", 0.2, 100),
                make_measured("dearer", 0.1, 200),
                make_measured("unsure", 0.0005, 0),
            ],
        )
    )
    assert find_unbeaten(points) == {"best"}
