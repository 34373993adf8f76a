"""The form that starts a run or a comparison; beside its button, what would be started."""

import atexit
from collections.abc import Mapping
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from awqscope.app.dashboard.asking import Asked, asking_button, asking_form
from awqscope.app.dashboard.components import Link
from awqscope.app.dashboard.jobs.plans import Plans
from awqscope.app.dashboard.jobs.requests import (
    KINDS,
    RefusedError,
    Request,
    read_request,
    request_like,
    suggest_name,
)
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.starts import ENDED, find_pending
from awqscope.app.dashboard.parts import go_to, heading
from awqscope.app.dashboard.sections.fields import (
    FOLDED,
    SHOWN,
    field_group,
    list_folded,
    write_names,
)
from awqscope.app.dashboard.sections.preview import look_at_plan, preview, show_plan
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.store import Store, UnknownRunError
from awqscope.diagnose.runs.spec import AnySpec
from awqscope.mixedprec.errors import InputError

TICK = 1000
TABS = (("run", "A model to quantize"), ("compare", "A checkpoint made elsewhere"))
ABOUT = {
    "run": "Measures what AWQ costs every block of a model, repairs what stands out, and proves "
    "the checkpoint. ",
    "compare": "Measures, block by block, a checkpoint that another tool made against the model it "
    "was made from. ",
}


def form(request: Request, like: str = "", note: str = "") -> list[Any]:
    """The form, filled in as `request`; like: the run it was taken from; note: what of that the
    form cannot hold."""
    kind, name = request.kind, request.kind.COMMAND
    kept = f"{name} {like}"
    taken_from: list[Any] = (
        ["Filled in as ", go_to(like, link("run", like)), " was.", note] if like else []
    )
    return [
        heading("New run", over=go_to("Runs", link("runs"))),
        html.Nav(
            [
                Link(text, link("new", kind=each), "way", is_here=each == name)
                for each, text in TABS
            ],
            className="ways",
            **{"aria-label": "What to start"},
        ),
        html.P(
            [ABOUT[name], "It goes on when this page or the dashboard is closed. ", *taken_from],
            className="summary",
        ),
        asking_form(
            "new",
            *(field_group(title, keys, request, kept) for title, keys in SHOWN[kind]),
            html.Details(
                [
                    html.Summary("More options"),
                    *(field_group(title, keys, request, kept) for title, keys in FOLDED[kind]),
                ],
                id="new-more",
            ),
            html.Section(
                [
                    html.H2("What will be run"),
                    html.Div(id="new-preview", **{"aria-live": "polite"}),
                    html.Div(id="new-plan", **{"aria-live": "polite"}),
                ],
                className="preview",
            ),
            html.Div(
                [
                    asking_button("Start", "new-start"),
                    asking_button("What it will take", "plan-ask", "plan-asked", variant="default"),
                    html.P(id="new-said", className="said", role="alert"),
                ],
                className="start",
            ),
            look="form",
            follows=True,
        ),
        dcc.Store(id="plan-asked"),
        dcc.Store(id="new-followed"),
        dcc.Interval(id="plan-tick", interval=TICK, disabled=True),
    ]


def read_asked(asked: Asked) -> Request:
    """The request in what a form was told to ask."""
    values = asked["values"]
    return read_request(values, KINDS["compare" if "candidate" in values else "run"])


def write_problems(problems: Mapping[str, str], kind: type[AnySpec]) -> str:
    """How many fields need another look, and which."""
    return f"Not started. See {write_names(problems, kind)}." if problems else ""


def fill_in(store: Store, page: Page) -> tuple[Request, str, str]:
    """The request that the form begins with, the run that it is like, and what it leaves out."""
    like = page.option("like")
    pending = find_pending(store.root, like) if like else None
    if pending is not None:
        start = pending.start
        beside = {"device": start.device, "workers": start.workers}
        # The name of what came to nothing is free again.
        beside |= {"name": like} if pending.state == ENDED else {}
        return request_like(start.spec, beside), like, ""
    try:
        record = store.summary(like).record if like else None
    except UnknownRunError:
        record = None
    if record is None:
        return Request(KINDS[page.option("kind")]), "", ""
    note = (
        " That one ran the Python that its model came with; from here it is not run."
        if record.spec.trust_remote_code
        else ""
    )
    return request_like(record.spec.to_json()), like, note


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The form."""
    assert jobs is not None
    return form(*fill_in(store, page))


def register(app: Dash, jobs: Jobs) -> None:
    """Connect the form."""
    plans = Plans()
    atexit.register(plans.close)
    app.clientside_callback(
        ClientsideFunction("awqscope", "followFields"),
        Output("new-followed", "data"),
        Input({"type": "new", "field": ALL}, "value"),
        Input({"type": "new-flag", "field": ALL}, "checked"),
    )

    @app.callback(
        Output("new-preview", "children"),
        Output("new-plan", "children"),
        Output("plan-tick", "disabled"),
        Output({"type": "new", "field": "name"}, "placeholder"),
        Input("new-shown", "data"),
        prevent_initial_call=True,
    )
    def follow(shown: Asked | None) -> Any:
        if not shown:
            return no_update, no_update, no_update, no_update
        request = read_asked(shown)
        free = suggest_name(request.named_after, jobs.taken()) if request.named_after else ""
        planned = look_at_plan(jobs, plans, request, ask=False)
        running = planned is not None and planned.state == "running"
        return preview(jobs, request), show_plan(planned), not running, free

    @app.callback(
        Output("new-plan", "children", allow_duplicate=True),
        Output("plan-tick", "disabled", allow_duplicate=True),
        Output("new-preview", "children", allow_duplicate=True),
        Input("plan-asked", "data"),
        prevent_initial_call=True,
    )
    def plan(asked: Asked | None) -> Any:
        if not asked:
            return no_update, no_update, no_update
        request = read_asked(asked)
        planned = look_at_plan(jobs, plans, request, ask=True)
        running = planned is not None and planned.state == "running"
        return show_plan(planned), not running, preview(jobs, request)

    @app.callback(
        Output("new-plan", "children", allow_duplicate=True),
        Output("plan-tick", "disabled", allow_duplicate=True),
        Input("plan-tick", "n_intervals"),
        State("plan-asked", "data"),
        prevent_initial_call=True,
    )
    def follow_plan(_ticks: int, asked: Asked | None) -> Any:
        planned = look_at_plan(jobs, plans, read_asked(asked), ask=False) if asked else None
        if planned is not None and planned.state == "running":
            return no_update, no_update
        return show_plan(planned), True

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output({"type": "new", "field": ALL}, "error"),
        Output("new-more", "open"),
        Output("new-said", "children"),
        Input("new-asked", "data"),
        State({"type": "new", "field": ALL}, "id"),
        running=[(Output("new-start", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def start(asked: Asked | None, ids: list[dict[str, str]]) -> Any:
        if not asked:
            return no_update, [no_update] * len(ids), no_update, no_update
        request = read_asked(asked)
        said, problems = "", dict[str, str]()
        href: Any = no_update
        try:
            href = link("run", jobs.start(request))
        except RefusedError as error:
            problems = dict(error.fields)
            said = write_problems(problems, request.kind)
        except InputError as error:
            said = f"Not started: {error}."
        is_open = True if list_folded(request.kind) & set(problems) else no_update
        return href, [problems.get(key["field"], "") for key in ids], is_open, said
