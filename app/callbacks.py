"""What happens on a page once it is shown: from what was chosen to what is seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, no_update, set_props

from app.jobs import Jobs
from app.pages import run, runs
from app.store import Store, UnknownRunError
from app.urls import Page, read_address

ANY = ALL
ASSETS = Path(__file__).parent / "assets"


def option_values(values: list[Any], ids: list[dict[str, str]]) -> dict[str, str]:
    """The switches of a page: name -> value."""
    return {key["name"]: str(value) for key, value in zip(ids, values, strict=True)}


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the callbacks."""
    app.clientside_callback(
        ClientsideFunction("awqscope", "comparable"),
        Output("compare-button", "disabled"),
        Input("runs-grid", "selectedRows"),
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "filterRuns"),
        Output("runs-grid", "dashGridOptions"),
        Input("runs-filter", "value"),
        State("runs-grid", "dashGridOptions"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("awqscope", "openCompare"),
        Output("url", "href"),
        Input("compare-button", "n_clicks"),
        State("runs-grid", "selectedRows"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("runs-grid", "rowData"),
        Input("live", "n_intervals"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def refresh_list(_ticks: int, path: str) -> Any:
        return runs.list_rows(store) if read_address(path, "").name == "runs" else no_update

    @app.callback(
        Output("profile-card", "children"),
        Input({"type": "option", "name": ALL}, "value"),
        State({"type": "option", "name": ALL}, "id"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def redraw_profile(values: list[Any], ids: list[dict[str, str]], path: str) -> Any:
        page = read_address(path, "")
        if page.name != "run":
            return no_update
        chosen = option_values(values, ids)
        try:
            rows = store.table(page.run, "blocks")
        except UnknownRunError:
            return no_update
        return run.profile_card(rows, page.run, chosen["metric"], chosen["scale"])


def register_live(
    app: Dash,
    store: Store,
    jobs: Jobs | None,
    show: Callable[[Page], Any],
    stamp: Callable[[Page], str],
) -> None:
    """Keep the page of a run that goes on up to date: its progress at each tick, all of it once
    the run is another than was seen. show: page, whether its ticks end, and its stamp."""
    app.clientside_callback(
        ClientsideFunction("awqscope", "whereNow"),
        Output("here", "data"),
        Input("live", "n_intervals"),
        prevent_initial_call=True,
    )

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
        if page.run and stamp(page) != seen:
            return show(page)
        if page.name == "run" and (panel := live_progress(store, page.run)) is not None:
            set_props("progress-panel", {"children": panel})
            if jobs is not None:
                set_props("log-tail", {"children": jobs.log_tail(page.run)})
        return no_update, no_update, no_update


def live_progress(store: Store, name: str) -> Any:
    """The progress of a run that somebody works on; None for any other."""
    try:
        found = store.summary(name)
    except UnknownRunError:
        return None
    if found.state != "running":
        return None
    return run.progress_panel(found, store.progress(name))
