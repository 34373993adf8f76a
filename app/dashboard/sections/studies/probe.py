"""What would help a block, on its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.parts import chart, go_to, notice, table
from awqscope.app.dashboard.sections.studies.asking import study_card
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.figures.studies.probes import draw_probe
from awqscope.app.store import Store
from awqscope.app.words.predict import unit_table, widths_of, write_changes
from awqscope.app.words.studies.probe import (
    COLUMNS,
    NAMED,
    SUMMARY,
    TITLE,
    list_points,
    probe_rows,
    write_applying,
    write_finding,
    write_refused,
    write_way,
    write_windows,
)
from awqscope.diagnose.studies.probes.answer import BlockProbe, Measured
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import Width

MAKE, AS_OWN = "Make a recipe", "as the run's recipe"


@dataclass(frozen=True)
class Editable:
    """What the recipe page begins with: the run's recipe, and the widths that it offers."""

    own: Recipe
    allowed: Sequence[Width]


def find_editable(store: Store, run: str) -> Editable | None:
    """What the recipe page of a run begins with; None where there is none yet."""
    own, units = store.recipe(run), store.table(run, "units")
    if own is None or not units:
        return None
    return Editable(own, widths_of(unit_table(units, store.table(run, "groups"))))


def probe_card(state: StudyState, store: Store, page: Page, location: ModelLocation | None) -> Any:
    """The study on the page of its block."""
    editable = find_editable(store, page.run)
    return study_card(
        state,
        TITLE,
        SUMMARY,
        partial(draw_answer, run=page.run, editable=editable),
        button="Try what would help",
        fields=list_fields(),
        location=location,
    )


def list_fields() -> list[Any]:
    """What the form asks for: the names are those of the study's kind."""
    return [
        dmc.Textarea(
            id="study-probe-calib",
            name="calib_also",
            label="Other calibration texts",
            description="A text a line, named as for a run; left empty, the run's own alone.",
            autosize=True,
            minRows=1,
            maxRows=4,
            spellCheck=False,
        ),
        dmc.NumberInput(
            id="study-probe-windows",
            name="windows",
            label="Windows",
            description="to measure on",
            min=2,
            allowDecimal=False,
        ),
    ]


def draw_answer(answer: Mapping[str, Any], *, run: str, editable: Editable | None) -> list[Any]:
    """The finding, KL given back against bytes, and a line an alternative."""
    try:
        probe = BlockProbe.model_validate(answer)
    except ValueError:
        return [notice("This answer is of another version", html.P("Measure it again."))]
    columns = {**COLUMNS, "recipe": ""}
    rows = [
        line | {"recipe": _link_recipe(each, probe, run, editable)}
        for line, each in zip(probe_rows(probe), probe.alternatives, strict=True)
    ]
    said = [NAMED, *write_refused(probe), write_windows(probe)]
    return [
        html.P(write_finding(probe), className="summary"),
        chart(draw_probe(list_points(probe)), "KL given back against bytes, see the table"),
        table(columns, rows, "Alternatives, by KL given back a byte"),
        *(html.P(line, className="note") for line in said),
    ]


def _link_recipe(each: Measured, probe: BlockProbe, run: str, editable: Editable | None) -> Any:
    """A way to the recipe page with an alternative's widths, or what else makes it."""
    if each.widths is None:
        return write_way(each)
    if editable is None or not each.widths.keys() <= editable.own.widths.keys():
        return ""
    if not set(each.unit_widths.values()) <= set(editable.allowed):
        return write_applying(probe, each)
    changes = write_changes(each.unit_widths, editable.own.widths)
    return go_to(MAKE, link("recipe", run, bits=changes)) if changes else AS_OWN
