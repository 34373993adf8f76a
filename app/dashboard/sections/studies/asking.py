"""The card of a study: its answer, how far it is, and the form that starts it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update, set_props

from awqscope.app.dashboard.asking import Asked, asking_button, asking_form
from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.studies import (
    KINDS,
    StudyState,
    look_at_study,
    start_study,
    stop_study,
)
from awqscope.app.dashboard.parts import card, notice
from awqscope.app.dashboard.sections.model_location import can_open
from awqscope.app.dashboard.urls import Page, read_address
from awqscope.app.store import Store, UnknownRunError
from awqscope.mixedprec.errors import InputError

TICK = 1500

Draw = Callable[[Mapping[str, Any]], Sequence[Any]]


def list_states(store: Store, page: Page) -> list[StudyState]:
    """How the studies that belong on a page stand."""
    return [
        look_at_study(store, page.run, kind, page.block if kind.of_block else None)
        for kind in KINDS.values()
        if kind.page == page.name
    ]


def study_card(
    state: StudyState,
    title: str,
    summary: str,
    draw: Draw,
    *,
    button: str,
    fields: Sequence[Any] = (),
    location: ModelLocation | None = None,
) -> Any:
    """A study on a page. summary: what it answers; draw: its answer drawn; button: the words that
    start it; fields: of its form, each with the name that the study's kind has for it. location:
    where the run's model is, None where nothing can be started: then a study without an answer is
    left out."""
    if location is None and state.answer is None and state.state != "running":
        return None
    parts: list[Any] = []
    if state.state == "running":
        parts.append(_write_progress(state, can_stop=location is not None))
    elif state.state == "failed":
        why = find_reason(state.log) or "Its log says why."
        log = html.Details([html.Summary("Log"), html.Pre(state.log, tabIndex=0)])
        parts.append(notice("✕ This was not measured", html.P(why), log, tone="bad"))
    if state.answer is not None:
        parts += draw(state.answer)
    if location is not None and state.state != "running":
        parts.append(_study_form(state, button, fields, location))
    return card(title, *parts, summary=summary)


def _write_progress(state: StudyState, *, can_stop: bool) -> Any:
    """A study at work, with the last thing that it said."""
    name = {"name": state.name}
    stop = dmc.Button("Stop", id={"type": "study-stop", **name}, size="xs", variant="default")
    return notice(
        "◐ Measuring",
        html.P(_last_line(state), id={"type": "study-progress", **name}, role="status"),
        html.Div([stop], className="actions") if can_stop else None,
    )


def _last_line(state: StudyState) -> str:
    lines = [line for line in state.log.splitlines() if line and not line.startswith("$ ")]
    return lines[-1] if lines else "starting"


def _study_form(
    state: StudyState, button: str, fields: Sequence[Any], location: ModelLocation
) -> Any:
    """The form that starts a study; folded away once there is an answer."""
    kind = state.kind.name
    form = asking_form(
        f"study-{kind}",
        html.Div(list(fields), className="asking study"),
        html.Div(
            [
                asking_button(
                    button, f"study-{kind}-start", size="sm", disabled=not can_open(location)
                ),
                html.P(id=f"study-{kind}-said", className="said", role="status"),
            ],
            className="actions under",
        ),
    )
    return form if state.answer is None else html.Details([html.Summary("Measure again"), form])


def follow_studies(states: Sequence[StudyState]) -> list[Any]:
    """What keeps a page's studies up to date; once on a page that has any."""
    is_busy = any(state.state == "running" for state in states)
    return [
        dcc.Interval(id="studies-tick", interval=TICK, disabled=not is_busy),
        dcc.Store(id="studies-seen", data=_stamp(states)),
    ]


def _stamp(states: Sequence[StudyState]) -> str:
    """What tells one state of the studies from the next, except for their progress."""
    return repr([(state.name, state.state, state.made) for state in states])


def _show_again(path: str, search: str) -> None:
    set_props("address", {"data": {"path": path, "search": search}})


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the look at how far studies are, and the buttons that start and stop them."""

    @app.callback(
        Output("studies-seen", "data"),
        Input("studies-tick", "n_intervals"),
        State("studies-seen", "data"),
        State("url", "pathname"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def follow(_ticks: int, seen: str, path: str, search: str) -> Any:
        try:
            states = list_states(store, read_address(path, search))
        except (InputError, LookupError, OSError):
            return no_update
        if _stamp(states) != seen:
            _show_again(path, search)
            return _stamp(states)
        for state in states:
            if state.state == "running":
                shown = {"type": "study-progress", "name": state.name}
                set_props(shown, {"children": _last_line(state)})
        return no_update

    if jobs is None:
        return

    for kind in KINDS.values():

        @app.callback(
            Output(f"study-{kind.name}-said", "children"),
            Input(f"study-{kind.name}-asked", "data"),
            running=[(Output(f"study-{kind.name}-start", "loading"), True, False)],
            prevent_initial_call=True,
        )
        def start(asked: Asked | None, kind: Any = kind) -> Any:
            if not asked:
                return no_update
            page = read_address(asked["path"], asked["search"])
            block = page.block if kind.of_block else None
            try:
                start_study(store, page.run, kind, block, asked["values"])
            except UnknownRunError:
                return "Not started: the run is gone."
            except InputError as error:
                return f"Not started: {error}."
            _show_again(asked["path"], asked["search"])
            return ""

    @app.callback(
        Output("kept", "data", allow_duplicate=True),
        Input({"type": "study-stop", "name": ALL}, "n_clicks"),
        State("url", "pathname"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def stop(_clicks: list[int | None], path: str, search: str) -> Any:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:
            return no_update
        page = read_address(path, search)
        for state in list_states(store, page):
            if state.name == ctx.triggered_id["name"]:
                try:
                    stop_study(store, page.run, state.kind, state.block)
                except (InputError, UnknownRunError) as error:
                    shown = {"type": "study-progress", "name": state.name}
                    set_props(shown, {"children": f"{error}."})
        return no_update
