"""What happens on the recipe page that the browser cannot do by itself: the chart, recipes for a
budget, files, and checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.parts import as_table, notice
from awqscope.app.dashboard.sections.failed import AGAIN, clicked_part
from awqscope.app.dashboard.sections.recipe.editing import Editing, open_editing, write_recipe
from awqscope.app.dashboard.sections.recipe.made import (
    is_making,
    made_points,
    made_recipes,
    results,
)
from awqscope.app.dashboard.urls import read_address
from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.recipe_points import (
    best_at_size,
    cut_frontier,
    frontier_points,
    list_points,
    raced_points,
)
from awqscope.app.store import Store, UnknownRunError
from awqscope.app.words.predict import write_changes
from awqscope.app.words.run import measured_points, point_rows
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import UnitWidths
from awqscope.mixedprec.words import write_number, write_size

Row = Mapping[str, Any]
# What may have gone from a run, or been damaged, since its page was shown.
GONE = (InputError, LookupError, OSError)


def shown_points(store: Store, name: str, editing: Editing, changes: str, jobs: Jobs | None) -> Any:
    """Every recipe that a run knows something of, and the one being edited."""
    made = made_recipes(store, jobs, store.summary(name)) if jobs is not None else []
    mine = editing.predict(changes)
    return cut_frontier(
        [
            *frontier_points(store, name),
            *measured_points(editing.record, store.table(name, "promotions")),
            *raced_points(store.races(name)),
            *made_points(made),
            {"name": "yours", "bytes": mine.bytes, "kl": mine.kl, "kind": "yours"},
        ]
    )


def points_table(points: Sequence[Row]) -> Any:
    """The chart of recipes, as a table."""
    return as_table(
        {"name": "Recipe", "bytes": "Weights", "kl": "KL", "kind": ""},
        point_rows(list_points(points)),
    )


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the page."""
    _register_clientside(app)

    def edit(path: str) -> tuple[str, Editing | None]:
        name = read_address(path, "").run
        try:
            return name, open_editing(store, name)
        except GONE:
            return name, None

    def ask(path: str, find: Callable[[Editing], UnitWidths], changes: str) -> Any:
        """The changes that lead to what `find` finds, and what is said of it."""
        _, editing = edit(path)
        if editing is None or editing.scores is None:
            return no_update, no_update
        try:
            widths = find(editing)
        except InputError as error:
            return no_update, f"Not possible: {error.what}; {error.remedy}."
        found = write_changes(widths, editing.own.widths)
        return found, _describe(editing, changes, found)

    @app.callback(
        Output("recipe-figure", "figure"),
        Output("recipe-table", "children"),
        Input("recipe-editor", "rested"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def redraw(changes: str, path: str) -> Any:
        name, editing = edit(path)
        if editing is None:
            return no_update, no_update
        points = shown_points(store, name, editing, changes, jobs)
        return draw_recipes(points), points_table(points)

    @app.callback(
        Output("recipe-editor", "changes", allow_duplicate=True),
        Output("recipe-said", "children"),
        Input("recipe-editor", "asked"),
        State("recipe-editor", "changes"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def meet_budget(asked: Row | None, changes: str, path: str) -> Any:
        if not asked:
            return no_update, no_update
        try:
            value = float(str(asked["value"]).replace(",", "."))
        except ValueError:
            return no_update, f"Not possible: {asked['value']!r} is no number; give one like 4.5."
        return ask(path, lambda editing: editing.solve(str(asked["unit"]), value), changes)

    @app.callback(
        Output("recipe-editor", "changes", allow_duplicate=True),
        Output("recipe-said", "children", allow_duplicate=True),
        Input("recipe-best", "n_clicks"),
        State("recipe-editor", "changes"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def take_best(_clicks: int, changes: str, path: str) -> Any:
        def find(editing: Editing) -> UnitWidths:
            assert editing.scores is not None
            return best_at_size(editing.scores, editing.read(changes))

        return ask(path, find, changes)

    @app.callback(
        Output("recipe-file", "data"),
        Output("recipe-said", "children", allow_duplicate=True),
        Input("recipe-download", "n_clicks"),
        State("recipe-form", "value"),
        State("recipe-editor", "changes"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def download(clicks: int | None, form: str, changes: str, path: str) -> Any:
        _, editing = edit(path)
        if editing is None or not clicks:
            return no_update, no_update
        try:
            text, name = write_recipe(editing, changes, form)
        except InputError as error:
            return no_update, f"Not written: {error.what}; {error.remedy}."
        return dcc.send_string(text, name), f"{name} is written."

    if jobs is not None:
        _register_jobs(app, store, jobs, edit)


def _describe(editing: Editing, before: str, after: str) -> str:
    """What a recipe that was just taken is, beside the one before."""
    changed = sum(
        width != editing.read(before)[unit] for unit, width in editing.read(after).items()
    )
    mine = editing.predict(after)
    what = f"{write_size(mine.bytes)}, KL {write_number(mine.kl, '.4f')}"
    if not changed:
        return f"Nothing is better: it is the best already ({what})."
    return f"{changed} unit{'s' * (changed > 1)} changed: {what}, predicted."


def _register_clientside(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("awqscope", "keepChanges"),
        Output("kept", "data", allow_duplicate=True),
        Input("recipe-editor", "rested"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "takePoint"),
        Output("recipe-editor", "changes"),
        Input("recipe-figure", "clickData"),
        State("recipe-editor", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "resetRecipe"),
        Output("recipe-editor", "changes", allow_duplicate=True),
        Input("recipe-reset", "n_clicks"),
        prevent_initial_call=True,
    )


def free_name(folder: Path) -> str:
    """A name that no recipe made from the page has yet."""
    taken = {path.name.partition(".")[0] for path in folder.glob("*")}
    return next(f"by-hand-{n}" for n in range(1, len(taken) + 2) if f"by-hand-{n}" not in taken)


def _register_jobs(
    app: Dash, store: Store, jobs: Jobs, edit: Callable[[str], tuple[str, Editing | None]]
) -> None:
    """Checkpoints: begun, followed, tried again, removed."""

    @app.callback(
        Output("recipe-result", "children"),
        Output("recipe-tick", "disabled"),
        Input("recipe-make", "n_clicks"),
        State("recipe-editor", "changes"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def make(clicks: int | None, changes: str, path: str) -> Any:
        name, editing = edit(path)
        if not clicks or editing is None:
            return no_update, no_update
        try:
            free = free_name(store.find(name).path / "recipes")
            jobs.requantize(name, editing.make(changes), free)
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
