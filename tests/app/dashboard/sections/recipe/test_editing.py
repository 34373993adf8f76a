"""What the browser is told of a recipe, and what is made of what it tells."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.dashboard.sections.recipe.editing import (
    Editing,
    browser_data,
    list_forms,
    open_editing,
    write_recipe,
)
from awqscope.app.store import Store
from awqscope.app.words.predict import write_changes
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.emitters import EMITTERS
from awqscope.mixedprec.recipes.recipe import load_recipe
from tests.help.root import ROOT

REPORTS = ROOT / "reports"


@pytest.fixture(scope="module")
def editing() -> Editing:
    found = open_editing(Store(REPORTS), "sample")
    assert found is not None
    return found


def test_the_frontier_s_steps_lead_to_its_points(editing: Editing) -> None:
    """Every recipe that the slider takes is what the outline says of its place."""
    store = Store(REPORTS)
    data, outline = browser_data(editing, store, "sample"), store.outline("sample")
    names = [unit[0] for unit in data["units"]]
    widths = dict(editing.own.widths)
    for unit, width in data["start"]:
        widths[names[unit]] = editing.allowed[width]
    assert editing.scores is not None and len(data["steps"]) > 20
    for point, step in zip(outline, [*data["steps"], None], strict=False):
        found = editing.scores.predict(widths)
        assert found.bytes == point.bytes
        assert found.kl == pytest.approx(point.kl, rel=1e-9, abs=1e-15)
        if step is not None:
            widths[names[step[0]]] = editing.allowed[step[1]]


def test_the_browser_has_all_that_a_prediction_takes(editing: Editing) -> None:
    data = json.loads(json.dumps(browser_data(editing, Store(REPORTS), "sample")))
    assert data["widths"] == ["4", "8", "16"] and data["flagged"] == [5] and data["low"] == 0
    places = {name: at for at, (name, *_) in enumerate(data["units"])}
    _, own, is_kept, at = data["units"][places["5.o"]]
    rows = editing.units["5.o"]
    assert (own, is_kept) == (1, False)
    assert [pair[0] for pair in at] == [rows[width]["bytes"] for width in (4, 8, 16)]
    assert at[0][1] == pytest.approx(rows[4]["exact_kl"] or rows[4]["estimated_kl"], rel=1e-7)


@pytest.mark.parametrize(("budget", "value"), [("bits", 4.5), ("mb", 5.3)])
def test_a_budget_is_solved_as_by_the_command(
    editing: Editing, tmp_path: Path, budget: str, value: float
) -> None:
    out = tmp_path / "best.json"
    option = ["--target-bits", "4.5"] if budget == "bits" else ["--max-bytes", "5.3MB"]
    asked = ["recipe", str(REPORTS / "sample"), *option, "-o", str(out)]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    assert editing.solve(budget, value) == load_recipe(out).widths


def test_no_budget_that_nothing_meets(editing: Editing) -> None:
    with pytest.raises(InputError, match="no recipe is as small as"):
        editing.solve("bits", 3.0)
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError):
            editing.solve("bits", value)
        with pytest.raises(InputError):
            editing.solve("mb", value)


def test_a_recipe_is_written_for_every_tool_as_by_the_command(editing: Editing) -> None:
    assert list(list_forms()) == ["awqscope", *EMITTERS]
    for name in EMITTERS:
        asked = ["recipe", str(REPORTS / "sample"), "--emit", name]
        commands = CliRunner().invoke(app, asked)
        try:
            text, file = write_recipe(editing, "", name)
        except InputError as error:
            assert commands.exit_code == 2 and error.what in commands.output.replace("\n", " ")
            continue
        assert commands.exit_code == 0 and text == commands.stdout
        assert file == f"{name}{EMITTERS[name].suffix}"


def test_what_was_changed_is_in_the_file(editing: Editing) -> None:
    changes = "0.down:8,5.o:4"
    text, file = write_recipe(editing, changes, "awqscope")
    made = json.loads(text)
    widths = {unit["unit"]: unit["bits"] for unit in made["units"]}
    assert (widths["0.down"], widths["5.o"], widths["5.qkv"], widths["1.o"]) == (8, 4, 8, 4)
    assert (made["kind"], file) == ("by hand", "recipe.json")
    assert write_changes(editing.read(changes), editing.own.widths) == changes
    assert json.loads(write_recipe(editing, "", "awqscope")[0])["kind"] == "flagged"
