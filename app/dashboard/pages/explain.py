"""A prompt explained: where the quantized model parts, which block breaks it, what repairs it."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update, set_props

from awqscope.app.dashboard.asking import Asked, asking_button, asking_form
from awqscope.app.dashboard.jobs.explanations import (
    TOKENS,
    Explaining,
    check_question,
    discard,
    explain_again,
    list_explaining,
    start_explaining,
)
from awqscope.app.dashboard.jobs.moved import ModelLocation, find_model
from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.run import run_heading
from awqscope.app.dashboard.parts import card, fell_back, heading, notice
from awqscope.app.dashboard.sections.explained import QUOTED, earlier_card, entry_parts
from awqscope.app.dashboard.sections.failed import AGAIN, clicked_part, failed_buttons
from awqscope.app.dashboard.sections.model_location import can_open, location_panel
from awqscope.app.dashboard.urls import Page, link, read_address
from awqscope.app.store import RunSummary, Store, UnknownRunError
from awqscope.app.words.compared.comparison import NO_SEARCHES
from awqscope.app.words.explanation import shorten
from awqscope.diagnose.runs.record import Comparison
from awqscope.mixedprec.errors import InputError

TICK = 1500


def question_card(run: str, location: ModelLocation) -> Any:
    """Where a prompt is typed; it stays there until another is."""
    return card(
        "Explain a prompt",
        location_panel(location),
        asking_form(
            "explain",
            html.Div(
                [
                    dmc.Textarea(
                        id="explain-prompt",
                        name="prompt",
                        label="Prompt",
                        autosize=True,
                        minRows=2,
                        maxRows=10,
                        description="As the model gets it: no chat template is added. Enter asks, "
                        "Shift and Enter begin a line.",
                        persistence=run,
                        persistence_type="session",
                    ),
                    dmc.NumberInput(
                        id="explain-tokens",
                        name="tokens",
                        label="Tokens",
                        description="to go on with",
                        value=TOKENS,
                        min=1,
                        allowDecimal=False,
                        persistence=run,
                        persistence_type="session",
                    ),
                ],
                className="asking",
            ),
            html.Div(
                [
                    asking_button(
                        "Explain", "explain-start", size="sm", disabled=not can_open(location)
                    ),
                    html.P(id="explain-said", className="said", role="status"),
                ],
                className="actions under",
            ),
            enter=True,
        ),
        summary="Both models go on with it, always taking the likeliest token. Where they part, "
        "every block is quantized alone and restored alone, and the cheapest repair is found.",
    )


def find_shown(asked: Sequence[Explaining], page: Page) -> Explaining | None:
    """The explanation that an address asks for, else the newest."""
    named = [job for job in asked if job.name == page.option("shown")]
    return next(iter([*named, *asked]), None)


def stamp(asked: Sequence[Explaining]) -> str:
    """What tells one state of all this from the next."""
    return repr([(job.name, job.state, job.log[-QUOTED:]) for job in asked])


def body(store: Store, page: Page, asked: Sequence[Explaining], *, can_act: bool) -> Any:
    """The explanation shown and the list of all; can_act: whether anything may be asked."""
    job = find_shown(asked, page)
    if job is None:
        return notice("Nothing is explained yet", html.P("What is asked here is kept here."))
    parts: list[Any] = [earlier_card(page.run, asked, store, job.name)]
    result = store.explained(page.run).get(job.name)
    if result is not None:
        entries = result["prompts"]
        entry = entries[min(page.number("prompt") or 0, len(entries) - 1)]
        parts = [*entry_parts(entry, result, page.run), *parts]
    elif job.state == "running":
        last = job.log.strip().splitlines()[-1:] or ["starting"]
        text = shorten(" ".join(job.prompts), QUOTED)
        parts.insert(0, notice(f"◐ Explaining “{text}”", html.P(last[0])))
    else:
        why = find_reason(job.log) or "Its log says why."
        log = html.Details([html.Summary("Log"), html.Pre(job.log, tabIndex=0)])
        asked_for = html.P(f"“{shorten(' '.join(job.prompts), QUOTED)}”") if job.prompts else None
        ways = failed_buttons("explain-failed", job.name) if can_act else None
        title = f"✕ {job.name} was not explained"
        parts.insert(0, notice(title, asked_for, html.P(why), ways, log, tone="bad"))
    return html.Div(parts)


def is_busy(asked: Sequence[Explaining]) -> bool:
    """Whether anything is under way."""
    return any(job.state == "running" for job in asked)


def is_ready(run: RunSummary) -> bool:
    """Whether a run has what explaining needs."""
    record = run.record
    return record is not None and all(record.is_done(name) for name in ("search", "sweep"))


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The page where prompts are explained."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    parts: list[Any] = [run_heading(run, "explain", "Explain")]
    if isinstance(run.record, Comparison):
        return [*parts, notice("Nothing can be explained here", html.P(NO_SEARCHES))]
    if not is_ready(run):
        said = html.P("Search and sweep must be done first.")
        return [*parts, notice("Nothing can be explained yet", said)]
    if jobs is not None:
        parts.append(question_card(run.name, find_model(store, run.name)))
    asked = list_explaining(store, page.run)
    named, found = page.option("shown"), find_shown(asked, page)
    if named and found is not None and found.name != named:
        parts.append(fell_back(f"There is no explanation “{named}”", f"{found.name}, the newest,"))
    return [
        *parts,
        html.Div(
            body(store, page, asked, can_act=jobs is not None),
            id="explain-body",
            **{"aria-live": "polite"},
        ),
        dcc.Interval(id="explain-tick", interval=TICK, disabled=not is_busy(asked)),
        dcc.Store(id="explain-seen", data=stamp(asked)),
    ]


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the look at how far explanations are, and the button that asks for one."""

    @app.callback(
        Output("explain-body", "children"),
        Output("explain-tick", "disabled"),
        Output("explain-seen", "data"),
        Input("explain-tick", "n_intervals"),
        State("explain-seen", "data"),
        State("url", "pathname"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def follow(_ticks: int, seen: str, path: str, search: str) -> Any:
        page = read_address(path, search)
        try:
            asked = list_explaining(store, page.run)
            if stamp(asked) == seen:
                return no_update, no_update, no_update
            shown = body(store, page, asked, can_act=jobs is not None)
            return shown, not is_busy(asked), stamp(asked)
        except (InputError, LookupError, OSError):
            return no_update, True, no_update

    if jobs is None:
        return

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("explain-said", "children"),
        Input("explain-asked", "data"),
        running=[(Output("explain-start", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def start(asked: Asked | None) -> Any:
        if not asked:
            return no_update, no_update
        run, values = read_address(asked["path"], "").run, asked["values"]
        try:
            name = start_explaining(
                store, run, *check_question(values.get("prompt"), values.get("tokens"))
            )
        except UnknownRunError:
            return no_update, "Not started: the run is gone."
        except InputError as error:
            return no_update, f"Not started: {error}."
        return link("explain", run, shown=name), ""

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("explain-said", "children", allow_duplicate=True),
        Input({"type": "explain-failed", "name": ALL, "act": ALL}, "n_clicks"),
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
                explain_again(store, run, name)
            else:
                discard(store, run, name)
        except (InputError, UnknownRunError) as error:
            return no_update, f"{error}."
        shown = name if act == AGAIN else None
        search = link("explain", run, shown=shown).partition("?")[2]
        set_props("address", {"data": {"path": path, "search": f"?{search}"}})
        return no_update, ""
