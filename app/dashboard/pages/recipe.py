"""The recipe: what it costs and gives back, and a grid to make another by hand."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update

from awqscope.app.dashboard.jobs.moved import find_model
from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs, Requantization
from awqscope.app.dashboard.pages.failed import AGAIN, clicked_part, failed_buttons
from awqscope.app.dashboard.pages.run import run_heading
from awqscope.app.dashboard.parts import (
    as_table,
    card,
    chart,
    fell_back,
    heading,
    notice,
    table,
    tile,
    tiles,
)
from awqscope.app.dashboard.sections.model_location import can_open, location_panel
from awqscope.app.dashboard.sections.recipe_points import (
    cut_frontier,
    frontier_points,
    list_points,
    raced_points,
)
from awqscope.app.dashboard.urls import Page, read_address
from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.store import RunSummary, Store, UnknownRunError
from awqscope.app.words.comparison import NO_RECIPE
from awqscope.app.words.predict import Prediction, predict, read_changes, unit_table, widths_of
from awqscope.app.words.run import measured_points, point_rows
from awqscope.diagnose.runs.record import Comparison, Record
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import write_type
from awqscope.mixedprec.recipes.recipe import Recipe, change_recipe, load_recipe, recipe_json
from awqscope.mixedprec.scheme import Grouped, UnitWidths, Width, parse_width, write_width
from awqscope.mixedprec.words import NOTHING, write_bounded, write_number, write_share, write_size

TICK = 1500

Row = Mapping[str, Any]
# A requantization, and what it should come to.
Made = tuple[Requantization, Prediction | None]


def known_points(
    store: Store, run: str, record: Record, made: Sequence[Made]
) -> list[dict[str, Any]]:
    """Every recipe that a run knows something of, but the one being made by hand."""
    return [
        *frontier_points(store, run),
        *measured_points(record, store.table(run, "promotions")),
        *raced_points(store.races(run)),
        *made_points(made),
    ]


def chart_card(points: Sequence[Row], mine: Prediction) -> Any:
    """Bytes against KL, the hand-made recipe among the rest."""
    yours = {"name": "yours", "bytes": mine.bytes, "kl": mine.kl, "kind": "yours"}
    shown = cut_frontier([*points, yours])
    return card(
        "Size against damage",
        chart(draw_recipes(shown), "Recipes by size and KL, see the table"),
        as_table(
            {"name": "Recipe", "bytes": "Weights", "kl": "KL", "kind": ""},
            point_rows(list_points(shown)),
        ),
        summary="Down and to the left is better. The line joins the best recipes there are; none "
        "is predicted to lie below it. Filled marks were measured; hollow ones are promotions that "
        "the sweep tried in the quantized model; crosses are cheap choices of as many bytes as the "
        "run's recipe has.",
    )


def prediction_tiles(mine: Prediction, record: Record, changed: int, is_own: bool) -> html.Dl:
    """The recipe's numbers; beside those of the run's own, what was measured."""
    headline, low = record.measured, record.spec.bits
    if is_own and headline.kl.mixed is not None:
        kl_note = f"measured {headline.kl.mixed:.4f}"
        ppl_note = f"measured {headline.ppl.mixed:.3f}"
        back_note = f"measured {write_share(headline.recovered)}"
    else:
        kl_note = f"uniform {headline.kl.uniform:.4f}"
        ppl_note, back_note = f"16-bit {headline.ppl.reference:.3f}", ""
    growth = mine.bytes / headline.bytes.uniform - 1
    return tiles(
        tile("Units not at " + f"{low} bits", str(changed)),
        tile("Size", write_size(mine.bytes), f"{write_number(growth, '+.1%')} on uniform"),
        tile("KL, predicted", write_number(mine.kl, ".4f"), kl_note),
        tile("Perplexity, predicted", write_number(mine.ppl, ".3f"), ppl_note),
        tile("Recovered, predicted", write_share(mine.recovered), back_note, "good"),
    )


def unit_grid(recipe: Recipe, widths: UnitWidths, allowed: Sequence[Width]) -> Any:
    """Blocks by unit kinds; each cell a width to choose."""
    kinds = list(dict.fromkeys(entry.unit.partition(".")[2] for entry in recipe.units))
    rows = grid_rows(recipe, widths)
    columns: list[dict[str, Any]] = [
        {"field": "block", "headerName": "Block", "width": 96, "pinned": "left"}
    ]
    columns += [
        {
            "field": kind,
            "headerName": kind,
            "flex": 1,
            "minWidth": 92,
            "cellRenderer": "WidthSelect",
            "cellRendererParams": {"widths": list(map(_write_cell, allowed))},
            # The arrow keys are the list's own while it has the focus.
            "suppressKeyboardEvent": {"function": "params.event.target.tagName == 'SELECT'"},
            "cellClassRules": {
                "promoted": f"params.value != {allowed[0]} && params.value != 16",
                "kept": "params.value == 16",
            },
        }
        for kind in kinds
    ]
    return dag.AgGrid(
        id="units-grid",
        className="grid widths",
        columnDefs=columns,
        rowData=rows,
        getRowId="`${params.data.block}`",
        defaultColDef={"sortable": False, "resizable": True},
        dashGridOptions={
            "theme": {"function": "awqscopeTheme(agGrid)"},
            "domLayout": "autoHeight" if len(rows) <= 16 else "normal",
            "rowHeight": 40,
            "ensureDomOrder": True,
        },
        style={"height": None if len(rows) <= 16 else "60vh"},
    )


def _write_cell(width: Width) -> int | str:
    """A width as the grid holds it."""
    return width if isinstance(width, int) else str(width)


def grid_rows(recipe: Recipe, widths: UnitWidths) -> list[dict[str, Any]]:
    """A line a block: `block`, and the width of every kind of unit."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in recipe.units:
        block, _, kind = entry.unit.partition(".")
        rows.setdefault(int(block), {"block": int(block)})
        rows[int(block)][kind] = _write_cell(widths[entry.unit])
    return [rows[block] for block in sorted(rows)]


def grid_widths(rows: Sequence[Row]) -> dict[str, Width]:
    """unit -> width, out of the grid."""
    return {
        f"{row['block']}.{kind}": parse_width(str(width))
        for row in rows
        for kind, width in row.items()
        if kind != "block"
    }


def made_recipes(store: Store, jobs: Jobs, run: RunSummary) -> list[Made]:
    """What was requantized from this page, newest first, each with what it should come to (None
    where that cannot be told any more)."""
    units = unit_table(store.table(run.name, "units"), store.table(run.name, "groups"))
    found: list[Made] = []
    for job in jobs.requantizations(run.name):
        try:
            recipe = load_recipe(store.find(run.name).path / "recipes" / f"{job.name}.json")
            found.append((job, predict(store.find(run.name).read_searched(), units, recipe.widths)))
        except (InputError, KeyError):
            found.append((job, None))
    return found


def is_making(made: Sequence[Made]) -> bool:
    """Whether any of them is still under way."""
    return any(job.state == "running" for job, _ in made)


def results(made: Sequence[Made]) -> Any:
    """How far each requantization is, and in the end measured beside predicted."""
    return [result_card(job, predicted) for job, predicted in made]


def result_card(job: Requantization, predicted: Prediction | None) -> Any:
    """One requantization."""
    if job.state == "running":
        last = job.log.strip().splitlines()[-1:] or ["starting"]
        return notice(f"◐ {job.name} is being made", html.P(last[0]))
    if job.state == "failed" or job.result is None:
        why = find_reason(job.log)
        log = html.Details([html.Summary("Log"), html.Pre(job.log, tabIndex=0)], open=not why)
        return notice(
            f"✕ {job.name} was not made",
            html.P(why) if why else None,
            failed_buttons("recipe-failed", job.name),
            log,
            tone="bad",
        )
    measured = job.result.get("proof") or {}
    lines = [
        (
            "Weights on disk",
            write_size(job.result["bytes"]),
            predicted and write_size(predicted.bytes),
        ),
    ]
    if measured:
        lines += [
            (
                "KL",
                write_bounded(measured["kl"], measured["kl_interval"], ".4f"),
                predicted and write_number(predicted.kl, ".4f"),
            ),
            (
                "Perplexity",
                write_number(measured["ppl"], ".3f"),
                predicted and write_number(predicted.ppl, ".3f"),
            ),
            (
                "Recovered",
                write_share(measured["recovered"]),
                predicted and write_share(predicted.recovered),
            ),
        ]
    reasons = "; and ".join(measured.get("reasons") or ())
    failed = f"THE PROOF FAILED: {reasons}." if reasons else "THE PROOF FAILED."
    of_type = write_type((job.result.get("serving") or {}).get("type"))
    said = (
        ("The proof passed." + f" {of_type}." * bool(of_type)) if measured.get("passed") else failed
    )
    return notice(
        f"● {job.name} is made",
        table(
            {"what": "", "predicted": "Predicted", "measured": "Measured"},
            [
                {"what": what, "measured": value, "predicted": expected or NOTHING}
                for what, value, expected in lines
            ],
        ),
        html.P([said, " ", html.Code(job.result["checkpoint"])], className="summary"),
        tone="" if measured.get("passed") else "bad",
    )


def made_points(made: Sequence[Made]) -> list[dict[str, Any]]:
    """What was requantized from this page, as measured."""
    return [
        {
            "name": job.name,
            "bytes": job.result["bytes"],
            "kl": job.result["proof"]["kl"],
            "kind": "measured",
        }
        for job, _ in made
        if job.result is not None and job.result.get("proof")
    ]


def download(recipe: Recipe) -> str:
    """The recipe as the JSON that `requantize` takes."""
    return json.dumps(recipe_json(recipe), indent=2)


def editor(
    store: Store, run: RunSummary, record: Record, recipe: Recipe, page: Page, jobs: Jobs | None
) -> Any:
    """The grid, what it should come to, and what to do with it."""
    units = unit_table(store.table(run.name, "units"), store.table(run.name, "groups"))
    allowed = widths_of(units)
    changes = read_changes(page.option("bits"), units, allowed)
    widths = recipe.widths | changes
    mine = predict(record, units, widths)
    made = made_recipes(store, jobs, run) if jobs is not None else []
    points = known_points(store, run.name, record, made)
    low = record.spec.bits
    changed = sum(width != low for width in widths.values())
    actions: list[Any] = [
        dmc.Button("Back to the run's recipe", id="recipe-reset", variant="default", size="sm"),
        dmc.Button(
            "Best at this size",
            id="recipe-best",
            variant="default",
            size="sm",
            disabled=store.scores(run.name) is None,
        ),
        dmc.Button("Download recipe", id="recipe-download", variant="default", size="sm"),
    ]
    location = None
    if jobs is not None and record.find_skipped("requantize") is None:
        location = find_model(store, run.name)
        actions.append(
            dmc.Button(
                "Requantize and measure",
                id="recipe-make",
                size="sm",
                disabled=not can_open(location),
            )
        )
    asked = [part for part in page.option("bits").split(",") if part]
    unknown = [part for part in asked if part.partition(":")[0] not in changes]
    return html.Div(
        [
            fell_back(f"There is no {', '.join(unknown)}", "the rest") if unknown else None,
            html.Div(
                prediction_tiles(mine, record, changed, widths == recipe.widths),
                id="recipe-tiles",
            ),
            html.Div(chart_card(points, mine), id="recipe-chart"),
            card(
                "Widths by hand",
                unit_grid(recipe, widths, allowed),
                location_panel(location) if location is not None else None,
                html.Div(actions, className="actions under"),
                html.Div(results(made), id="recipe-result", **{"aria-live": "polite"}),
                dcc.Interval(id="recipe-tick", interval=TICK, disabled=not is_making(made)),
                dcc.Download(id="recipe-file"),
                dcc.Store(id="recipe-changes"),
                summary="Choose a width for any unit; linears that a server fuses change "
                "together. The numbers above follow at once." + _explain_widths(allowed),
            ),
        ]
    )


def _explain_widths(allowed: Sequence[Width]) -> str:
    """What "4x32" means, where it can be chosen."""
    found = [width for width in allowed if isinstance(width, Grouped)]
    return f" {found[0]} is {write_width(found[0])}." if found else ""


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The recipe page."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    record = run.record
    if isinstance(record, Comparison):
        said = html.P(NO_RECIPE)
        return [run_heading(run, "recipe", "Recipe"), notice("A comparison has no recipe", said)]
    recipe = store.recipe(run.name)
    if recipe is None or record.headline is None or not store.table(run.name, "units"):
        said = html.P("It is chosen once sweep and estimates are done.")
        return [run_heading(run, "recipe", "Recipe"), notice("No recipe yet", said)]
    return [run_heading(run, "recipe", "Recipe"), editor(store, run, record, recipe, page, jobs)]


def register(app: Dash, store: Store, jobs: Jobs) -> None:
    """Connect the button that makes a recipe's checkpoint."""

    @app.callback(
        Output("recipe-result", "children"),
        Output("recipe-tick", "disabled"),
        Input("recipe-make", "n_clicks"),
        State("units-grid", "rowData"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def make(clicks: int | None, rows: Sequence[Row], path: str) -> Any:
        name = read_address(path, "").run
        own = store.recipe(name)
        if not clicks or own is None:
            return no_update, no_update
        folder = store.find(name).path / "recipes"
        taken = {path.name.partition(".")[0] for path in folder.glob("*")}
        free = next(f"by-hand-{n}" for n in range(1, len(taken) + 2) if f"by-hand-{n}" not in taken)
        try:
            jobs.requantize(name, change_recipe(own, grid_widths(rows)), free)
        except InputError as error:
            return notice("Not started", html.P(str(error)), tone="bad"), no_update
        return results(made_recipes(store, jobs, store.summary(name))), False

    @app.callback(
        Output("recipe-result", "children", allow_duplicate=True),
        Output("recipe-tick", "disabled", allow_duplicate=True),
        Input({"type": "recipe-failed", "name": ALL, "act": ALL}, "n_clicks"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def mend(_clicks: list[int | None], path: str) -> Any:
        chosen = clicked_part()
        if chosen is None:
            return no_update, no_update
        run, (name, act) = read_address(path, "").run, chosen
        try:
            if act == AGAIN:
                jobs.requantize_again(run, name)
            else:
                jobs.discard(run, name)
            made = made_recipes(store, jobs, store.summary(run))
        except (InputError, UnknownRunError) as error:
            return notice("That could not be done", html.P(str(error)), tone="bad"), no_update
        return results(made), not is_making(made)

    @app.callback(
        Output("recipe-result", "children", allow_duplicate=True),
        Output("recipe-tick", "disabled", allow_duplicate=True),
        Input("recipe-tick", "n_intervals"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def follow(_ticks: int, path: str) -> Any:
        try:
            made = made_recipes(store, jobs, store.summary(read_address(path, "").run))
        except (InputError, LookupError):
            return no_update, True
        return results(made), not is_making(made)
