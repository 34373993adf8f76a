"""The recipe page of a run whose units were scored in smaller groups too."""

import json
from pathlib import Path

import numpy as np
import pytest
from dash import html
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.dashboard.pages.recipe import layout
from awqscope.app.dashboard.urls import Page, read_address
from awqscope.app.recipe_points import best_at_size
from awqscope.app.report.contents import read_findings
from awqscope.app.report.page import write_page
from awqscope.app.store import Store
from awqscope.app.words.predict import predict, unit_table, widths_of
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.scores import add_groups, list_scored
from awqscope.diagnose.runs.tables import GROUPS
from awqscope.mixedprec.recipes.recipe import change_recipe, save_recipe
from awqscope.mixedprec.scheme import Grouped
from tests.help.runs import write_run

FINE = Grouped(4, 32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A copy of the sample, each unit of which would cost half as much in groups of 32."""
    run = RunDirectory(write_run(tmp_path))
    rows = [
        {
            **{key: row[key] for key in ("unit", "block", "kind", "bits")},
            "group_size": 32,
            "bytes": row["bytes"] * 37 // 33,
            "estimated_kl": 0.2 * row["estimated_kl"],
            "estimated_kl_low": 0.1 * row["estimated_kl"],
            "estimated_kl_high": 0.3 * row["estimated_kl"],
            "own_kl": 0.4 * row["estimated_kl"],
        }
        for row in run.read_table("units").to_pylist()
        if row["bits"] == 4
    ]
    run.write_table("groups", rows, GROUPS)
    return Store(tmp_path)


def test_groups_are_among_the_choices(store: Store) -> None:
    page = Page("recipe", "sample", options={"bits": "0.o:4x32,1.o:8"})
    shown = str(html.Div(layout(store, page, None)))
    assert "4x32 is 4 bits in groups of 32." in shown
    assert "'widths': ['4', '4x32', '8', '16']" in shown and "changes='0.o:4x32,1.o:8'" in shown
    assert read_address("/run/sample/recipe", "?bits=0.o:4x32,1.o:8") == page
    plain = str(html.Div(layout(Store(store.root), Page("recipe", "sample"), None)))
    assert "changes=''" in plain


def test_groups_are_predicted_as_the_command_does(store: Store) -> None:
    units = unit_table(store.table("sample", "units"), store.table("sample", "groups"))
    assert widths_of(units) == [4, FINE, 8, 16]
    record, scores = store.summary("sample").record, store.grouped_scores("sample")
    assert isinstance(record, Record) and scores is not None
    run = RunDirectory(store.find("sample").path)
    plain = store.scores("sample")
    assert plain is not None and add_groups(run, plain, list_scored(run)) == scores
    widths = {**scores.uniform, "0.o": FINE, "5.qkv": FINE, "5.o": 8}
    ours, commands = predict(record, units, widths), scores.predict(widths)
    assert ours.bytes == commands.bytes
    assert ours.kl == pytest.approx(commands.kl, rel=1e-9)
    # Half of what the two cost, and nearly all of the third.
    five = plain.units[[unit.name for unit in plain.units].index("5.qkv")]
    assert scores.units[plain.units.index(five)].option(FINE).kl == five.options[0].kl / 2


def test_the_best_of_a_size_takes_groups(store: Store) -> None:
    scores, plain = store.grouped_scores("sample"), store.scores("sample")
    own = store.recipe("sample")
    assert scores is not None and plain is not None and own is not None
    mine = {**own.widths, "0.gate_up": 8}
    best = best_at_size(scores, mine)
    assert FINE in best.values()
    assert scores.predict(best).bytes <= plain.predict(mine).bytes
    assert scores.predict(best).kl < plain.predict(best_at_size(plain, mine)).kl
    # The frontier's line is over groups too: no recipe lies below it.
    outline = store.outline("sample")
    sizes, least = [point.bytes for point in outline], [point.kl for point in outline]
    found = scores.predict(best)
    assert found.kl >= np.interp(found.bytes, sizes, least) - 1e-12


def test_a_recipe_with_groups_in_the_place_of_the_runs_own_is_read_everywhere(store: Store) -> None:
    """Somebody may put it there by hand."""
    run, own = store.find("sample"), store.recipe("sample")
    assert own is not None
    # Groups of the run's own size are plain.
    mine = change_recipe(own, {"0.o": FINE, "1.o": Grouped(4, 128)})
    save_recipe(run.path / "recipe.json", mine)
    found = CliRunner().invoke(app, ["recipe", str(run.path), "--json"])
    assert found.exit_code == 0, found.output
    widths = {row["unit"]: row.get("group_size") for row in json.loads(found.stdout)["units"]}
    assert widths["0.o"] == 32 and widths["1.o"] is None
    fresh = Store(store.root)
    assert "4x32" in str(html.Div(layout(fresh, Page("recipe", "sample"), None)))
    record = fresh.summary("sample").record
    assert isinstance(record, Record)
    assert "4x32" in write_page(read_findings(run.path))
