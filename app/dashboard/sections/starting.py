"""A run between the click that starts it and its first record, or why it came to none; and the
buttons that start, stop and forget runs."""

from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, ctx, dcc, html, no_update, set_props

from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.starts import ENDED, STARTING, STOPPING, Pending
from awqscope.app.dashboard.parts import go_to, heading, notice
from awqscope.app.dashboard.urls import link
from awqscope.app.store import Store, UnknownRunError
from awqscope.mixedprec.errors import InputError


def layout(pending: Pending, jobs: Jobs | None) -> list[Any]:
    """The page of a run that has no record yet."""
    stop = stop_button(pending.name, jobs) if pending.state == STARTING else None
    return [
        heading(pending.name, over=go_to("Runs", link("runs")), beside=stop),
        html.P(id="job-said", className="said", role="status"),
        *pending_parts(pending, jobs, is_new=True),
    ]


def pending_parts(pending: Pending, jobs: Jobs | None, *, is_new: bool) -> list[Any]:
    """How a start stands, and what it has said. is_new: of a run that has no record at all."""
    log = log_details(pending.log, is_open=is_new or pending.state == ENDED)
    if pending.state == STOPPING:
        return [notice("◐ Stopping", html.P("It was asked to stop and does so shortly.")), log]
    if pending.state != ENDED:
        said = "Opening the model and the texts. What it finds follows here by itself."
        return [notice("◐ Starting", html.P(said)), log]
    ways: list[Any] = []
    if jobs is not None:
        if is_new:
            ways.append(go_to("Back to its form", link("new", like=pending.name)))
        ways.append(dismiss_button(pending.name))
    return [
        notice(
            "It did not begin" if is_new else "It did not go on",
            html.P(find_reason(pending.log) or "Its log says why."),
            html.Div(ways, className="actions"),
            tone="bad",
        ),
        log,
    ]


def stop_button(name: str, jobs: Jobs | None) -> Any:
    """Stops a run that somebody works on, or is about to, once it is confirmed; nothing where the
    dashboard may not stop anything."""
    if jobs is None:
        return None
    return dcc.ConfirmDialogProvider(
        dmc.Button("Cancel", variant="default", size="xs"),
        id={"type": "cancel", "name": name},
        message=f"Stop {name}? What is done so far is kept, and it can go on from there.",
    )


def dismiss_button(name: str) -> dmc.Button:
    """Forgets a start that came to nothing."""
    return dmc.Button("Dismiss", id={"type": "dismiss", "name": name}, variant="default", size="xs")


def log_details(tail: str, *, is_open: bool = False) -> html.Details:
    """The end of what a run's process said; hidden while there is nothing."""
    return html.Details(
        [html.Summary("Log"), html.Pre(tail, id="log-tail", tabIndex=0)],
        open=is_open,
        hidden=not tail,
    )


def clicked() -> str | None:
    """The run whose button was pressed; None where a button has only just appeared."""
    if not ctx.triggered_id or not ctx.triggered[0]["value"]:
        return None
    return str(ctx.triggered_id["name"])


def register(app: Dash, store: Store, jobs: Jobs) -> None:
    """Connect the buttons."""

    @app.callback(
        Output("job-said", "children"),
        Input({"type": "resume", "name": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def resume(_clicks: list[int | None]) -> Any:
        name = clicked()
        if name is None:
            return no_update
        try:
            jobs.resume(name)
        except (InputError, UnknownRunError) as error:
            return f"Not started: {error}."
        show_again(name)
        return ""

    @app.callback(
        Output("job-said", "children", allow_duplicate=True),
        Input({"type": "cancel", "name": ALL}, "submit_n_clicks"),
        prevent_initial_call=True,
    )
    def cancel(_clicks: list[int | None]) -> Any:
        name = clicked()
        if name is None:
            return no_update
        try:
            jobs.cancel(name)
        except (InputError, UnknownRunError) as error:
            return f"Not stopped: {error}."
        return "Asked to stop; this page shows when it has."

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("job-said", "children", allow_duplicate=True),
        Input({"type": "dismiss", "name": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def dismiss(_clicks: list[int | None]) -> Any:
        name = clicked()
        if name is None:
            return no_update, no_update
        try:
            jobs.dismiss(name)
        except InputError as error:
            return no_update, f"Not dismissed: {error}."
        if not any(run.name == name for run in store.list_runs()):
            return link("runs"), ""
        show_again(name)
        return no_update, ""


def show_again(name: str) -> None:
    """Have the page of a run shown as it is now."""
    set_props("address", {"data": {"path": link("run", name), "search": ""}})
