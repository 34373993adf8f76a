"""The recipe: what it costs and gives back, and every way to make another of it."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, dcc, html

from awqscope.app.dashboard.components import Recipe
from awqscope.app.dashboard.jobs.moved import find_model
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.run import run_heading
from awqscope.app.dashboard.parts import chart, fell_back, heading, notice
from awqscope.app.dashboard.sections.model_location import can_open, location_panel
from awqscope.app.dashboard.sections.recipe import answering
from awqscope.app.dashboard.sections.recipe.answering import points_table, shown_points
from awqscope.app.dashboard.sections.recipe.editing import (
    OWN_FORM,
    Editing,
    browser_data,
    list_forms,
    open_editing,
)
from awqscope.app.dashboard.sections.recipe.made import is_making, made_recipes, results
from awqscope.app.dashboard.urls import Page
from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.compared.comparison import NO_RECIPE
from awqscope.app.words.predict import read_changes, write_changes
from awqscope.diagnose.runs.record import Comparison
from awqscope.mixedprec.scheme import Grouped, Width, write_width

TICK = 1500


def chart_part(store: Store, name: str, editing: Editing, changes: str, jobs: Jobs | None) -> Any:
    """Bytes against KL, the edited recipe among the rest."""
    points = shown_points(store, name, editing, changes, jobs)
    label = "Recipes by size and KL, see the table"
    return html.Div(
        [
            chart(draw_recipes(points), label, id="recipe-figure"),
            html.Div(points_table(points), id="recipe-table"),
        ]
    )


def action_part(store: Store, run: RunSummary, editing: Editing, jobs: Jobs | None) -> Any:
    """What can be done with the edited recipe, and what came of it."""
    actions: list[Any] = [
        dmc.Button("Back to the run's recipe", id="recipe-reset", variant="default", size="sm"),
        dmc.Button(
            "Best at this size",
            id="recipe-best",
            variant="default",
            size="sm",
            disabled=editing.scores is None,
        ),
        dmc.Select(
            id="recipe-form",
            data=[{"value": key, "label": text} for key, text in list_forms().items()],
            value=OWN_FORM,
            allowDeselect=False,
            size="sm",
            w=170,
            **{"aria-label": "Written for"},
        ),
        dmc.Button("Download recipe", id="recipe-download", variant="default", size="sm"),
    ]
    location = None
    if jobs is not None and editing.record.find_skipped("requantize") is None:
        location = find_model(store, run.name)
        actions.append(
            dmc.Button(
                "Requantize and measure",
                id="recipe-make",
                size="sm",
                disabled=not can_open(location),
            )
        )
    made = made_recipes(store, jobs, run) if jobs is not None else []
    return html.Div(
        [
            html.P(
                "Click a cell, or press Enter on it, to give its unit another width; a block's "
                "number and a column's name give it to all of theirs. Linears that a server fuses "
                "change together. The numbers above follow at once."
                + explain_widths(editing.allowed),
                className="summary",
            ),
            location_panel(location) if location is not None else None,
            html.Div(actions, className="actions"),
            html.P(id="recipe-said", className="said under", role="status"),
            html.Div(results(made), id="recipe-result", **{"aria-live": "polite"}),
            dcc.Interval(id="recipe-tick", interval=TICK, disabled=not is_making(made)),
            dcc.Download(id="recipe-file"),
        ]
    )


def explain_widths(allowed: Sequence[Width]) -> str:
    """What "4x32" means, where it can be chosen."""
    found = [width for width in allowed if isinstance(width, Grouped)]
    return f" {found[0]} is {write_width(found[0])}." if found else ""


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The recipe page."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    over = run_heading(run, "recipe", "Recipe")
    if isinstance(run.record, Comparison):
        return [over, notice("A comparison has no recipe", html.P(NO_RECIPE))]
    editing = open_editing(store, run.name)
    if editing is None:
        said = html.P("It is chosen once sweep and estimates are done.")
        return [over, notice("No recipe yet", said)]
    asked = [part for part in page.option("bits").split(",") if part]
    known = read_changes(page.option("bits"), editing.units, editing.allowed)
    unknown = [part for part in asked if part.partition(":")[0] not in known]
    changes = write_changes(editing.read(page.option("bits")), editing.own.widths)
    return [
        over,
        fell_back(f"There is no {', '.join(unknown)}", "the rest") if unknown else None,
        Recipe(
            "recipe-editor",
            [
                chart_part(store, run.name, editing, changes, jobs),
                action_part(store, run, editing, jobs),
            ],
            browser_data(editing, store, run.name),
            changes,
        ),
    ]


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the page's buttons."""
    answering.register(app, store, jobs)
