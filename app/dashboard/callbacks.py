"""What happens on a page once it is shown: from what was chosen to what is seen."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, no_update, set_props
from dash.exceptions import PreventUpdate

from awqscope.app.dashboard import pairs
from awqscope.app.dashboard.hints import add_hints
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages import block, recipe, run, runs, tokens
from awqscope.app.dashboard.pages.compared import two_runs
from awqscope.app.dashboard.sections.listed.rows import list_rows, may_change, stamp_rows
from awqscope.app.dashboard.urls import METRICS, Page, link, query, read_address
from awqscope.app.store import Store, UnknownRunError
from awqscope.app.words.noise import find_floor
from awqscope.mixedprec.errors import InputError

ASSETS = Path(__file__).parent / "assets"


def option(name: str) -> dict[str, str]:
    """The id of a switch that stands for an option of the address (see parts.switch)."""
    return {"type": "option", "name": name}


def while_it_lasts(callback: Callable[..., Any]) -> Callable[..., Any]:
    """`callback`, except that the page stays as it is where its run is gone or damaged since."""

    @functools.wraps(callback)
    def wrapped(*args: Any) -> Any:
        try:
            return callback(*args)
        except (InputError, LookupError, OSError) as error:
            raise PreventUpdate from error

    return wrapped


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the callbacks."""
    _register_clientside(app)

    @app.callback(
        Output("profile-card", "children"),
        Input(option("metric"), "value"),
        Input(option("scale"), "value"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    @while_it_lasts
    def redraw_profile(metric: str, scale: str, path: str) -> Any:
        page = read_address(path, query("run", metric=metric, scale=scale))
        rows, floor = store.table(page.run, "blocks"), find_floor(store.summary(page.run).record)
        shown = (page.option("metric"), page.option("scale"), floor)
        return add_hints(run.profile_card(rows, page.run, *shown))

    @app.callback(
        Output("site-cards", "children"),
        Input(option("site"), "value"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    @while_it_lasts
    def redraw_site(site: str, path: str) -> Any:
        page = read_address(path, "")
        record = store.summary(page.run).record
        rows = [
            row
            for row in store.table(page.run, "activations")
            if row["block"] == page.block and row["site"] == site
        ]
        if record is None or not rows:
            return no_update
        cards = block.activation_cards(store, page.run, record, page.block, site, rows)
        return add_hints(cards)

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Input("compare-a", "value"),
        Input("compare-b", "value"),
        Input({"type": "side-model", "side": ALL}, "value"),
        State({"type": "side-model", "side": ALL}, "id"),
        State("url", "search"),
        State({"type": "option", "name": ALL}, "value"),
        prevent_initial_call=True,
    )
    @while_it_lasts
    def choose_sides(
        a: str | None,
        b: str | None,
        models: Sequence[str],
        sides: Sequence[Mapping[str, str]],
        search: str,
        measures: Sequence[str],
    ) -> Any:
        page = read_address("/compare", search)
        chosen = {side["side"]: model for side, model in zip(sides, models, strict=True)}
        shown = two_runs.read_sides(store, page)
        address = two_runs.follow_choice(page, shown, {"a": a, "b": b}, chosen)
        # Of this page the measure is all that a switch chooses; there is none before two runs are.
        measure = measures[0] if measures else page.option("measure")
        if address is None:
            return no_update
        options: dict[str, Any] = {**address, "measure": measure}
        return link("compare", **options)

    @app.callback(
        Output("differences-card", "children"),
        Input(option("measure"), "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    @while_it_lasts
    def redraw_differences(measure: str, search: str) -> Any:
        sides = two_runs.read_sides(store, read_address("/compare", search))
        if len(sides) < len(two_runs.SIDES):
            return no_update
        metric = measure if measure in METRICS else METRICS[0]
        a, b = sides["a"], sides["b"]
        differences = two_runs.differences_card(store, a, b, pairs.pair(store, a, b), metric)
        return add_hints(differences)

    tokens.register(app, store)
    recipe.register(app, store, jobs)


def _register_clientside(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("awqscope", "readAddress"),
        Output("address", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "keepOption"),
        Output("kept", "data"),
        Input({"type": "option", "name": ALL}, "value"),
        State({"type": "option", "name": ALL}, "id"),
        State("defaults", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "openBlock"),
        Output("kept", "data", allow_duplicate=True),
        Input({"type": "to-block", "chart": ALL}, "clickData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "comparable"),
        Output("compare-button", "disabled"),
        Output("compare-hint", "children"),
        Input("runs-grid", "selectedRows"),
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "filterRuns"),
        Output("kept", "data", allow_duplicate=True),
        Input("runs-filter", "value"),
        prevent_initial_call="initial_duplicate",
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "filterNotes"),
        Output("kept", "data", allow_duplicate=True),
        Input("runs-tags", "value"),
        Input("runs-archived", "checked"),
        prevent_initial_call="initial_duplicate",
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "openCompare"),
        Output("url", "href"),
        Input("compare-button", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "fitRuns"),
        Output("kept", "data", allow_duplicate=True),
        Input("runs-grid", "id"),
        prevent_initial_call="initial_duplicate",
    )


def register_live(
    app: Dash,
    store: Store,
    jobs: Jobs | None,
    show: Callable[[Page], Any],
    stamp: Callable[[Page], str],
) -> None:
    """Keep the list, and the page of a run under way, up to date: its progress at each tick, all
    of it once the run has changed since it was last shown. show: page, whether its ticks end, and
    its stamp."""
    app.clientside_callback(
        ClientsideFunction("awqscope", "whereNow"),
        Output("here", "data"),
        Input("live", "n_intervals"),
        Input("glance", "n_intervals"),
        prevent_initial_call=True,
    )

    def refresh_list(page: Page, seen: str, listed: bool) -> Any:
        lines = list_rows(store, jobs)
        if bool(lines) != listed:
            return show(page)
        now = stamp_rows(lines)
        if lines and now != seen:
            runs.show_rows(lines)
        return no_update, not may_change(lines), now

    @app.callback(
        Output("page", "children", allow_duplicate=True),
        Output("live", "disabled", allow_duplicate=True),
        Output("seen", "data", allow_duplicate=True),
        Input("here", "data"),
        State("seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(here: dict[str, Any], seen: str) -> Any:
        page = read_address(here["path"], here["search"])
        if page.name == "runs":
            return refresh_list(page, seen, bool(here.get("listed")))
        if page.run and stamp(page) != seen:
            return show(page)
        if page.name == "run" and (panel := live_progress(store, page.run)) is not None:
            set_props("progress-panel", {"children": panel})
            if jobs is not None:
                set_props("log-tail", {"children": jobs.log_tail(page.run)})
        return no_update, no_update, no_update


def live_progress(store: Store, name: str) -> Any:
    """The progress of a run that a process works on; None for any other."""
    try:
        found = store.summary(name)
    except UnknownRunError:
        return None
    if found.state != "running":
        return None
    return run.progress_panel(found, store.progress(name))
