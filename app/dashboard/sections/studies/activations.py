"""The card of the study of int8 inputs, on a run's page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.parts import as_table, chart, go_to, table
from awqscope.app.dashboard.sections.studies.asking import study_card
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.figures.studies.int8_inputs import draw_inputs
from awqscope.app.store import Store
from awqscope.app.words.studies.activations import (
    MEANINGS,
    NAMES,
    UNBROKEN,
    VIEW_COLUMNS,
    list_columns,
    list_missing,
    list_rows,
    list_units,
    unit_columns,
    view_rows,
    write_answer,
    write_sample,
)
from awqscope.diagnose.studies.int8_inputs.answer import Activations, Measured, parse_answer

TITLE = "Which blocks refuse int8 activations"
SUMMARY = (
    "Servers of W8A8 round what flows into linears to 8 bits too. Each block is measured with both "
    "its weights and its inputs at int8, beside its weights alone at the run's low width. ▲ marks "
    "what a block refuses."
)


def activations_card(
    state: StudyState, store: Store, page: Page, location: ModelLocation | None
) -> Any:
    """What int8 inputs cost each block, and the form that measures another method."""
    answer = parse_answer(state.answer)
    # What another version kept is measured again.
    state = state if answer is not None else replace(state, answer=None)
    missing = list_missing(answer)
    method = dmc.Select(
        id="activations-method",
        name="method",
        label="Method",
        data=[{"value": each, "label": MEANINGS[each]} for each in missing],
        value=missing[0],
        allowDeselect=False,
    )

    windows = dmc.NumberInput(
        id="activations-windows",
        name="windows",
        label="Windows",
        description="Of those that the run measured its blocks on. Left empty: all of them. "
        "What was measured on another number gives way.",
        value=state.asked.get("windows") or "",
        min=1,
    )

    def draw(given: Mapping[str, Any]) -> Sequence[Any]:
        return [] if answer is None else draw_answer(answer, page.run)

    return study_card(
        state,
        TITLE,
        SUMMARY,
        draw,
        button="Measure int8 inputs",
        fields=[method, windows],
        location=location,
    )


def draw_answer(answer: Activations, run: str) -> list[Any]:
    """The findings, a chart with its table, and each method's views folded away."""
    return [
        *(html.P(said) for said in write_answer(answer)),
        chart(draw_inputs(answer), "KL of each block alone by method, see the table"),
        html.P(f"{write_sample(answer)}.", className="hint"),
        as_table(list_columns(answer), _link_blocks(list_rows(answer), run)),
        *(part for found in answer.methods for part in _draw_views(found, run)),
    ]


def _draw_views(found: Measured, run: str) -> list[Any]:
    """The three views of a method by block, and what it decided of units."""
    name, units = NAMES[found.method], unit_columns(found)
    rows = _link_blocks(view_rows(found), run)
    views, by_unit = f"{name}: alone, up to here, if restored", f"{name}: unit by unit"
    parts = [table(VIEW_COLUMNS, rows, views, folded=views)]
    if units:
        parts.append(table(units, list_units(found), by_unit, folded=by_unit))
    return parts


def _link_blocks(rows: Sequence[Mapping[str, Any]], run: str) -> list[dict[str, Any]]:
    """Rows whose block leads to its page."""
    return [
        {**row, "block": go_to(f"Block{UNBROKEN}{row['block']}", link("block", run, row["block"]))}
        for row in rows
    ]
