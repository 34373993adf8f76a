"""What the form of a policy does: judge by what it holds, save it beside the run, take it away."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, html, no_update, set_props

from awqscope.app.dashboard.asking import Asked
from awqscope.app.dashboard.hints import add_hints
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.sections.gate.card import gate_card, limits_table
from awqscope.app.dashboard.sections.gate.head import LIMITS, draw_judgement, draw_ship
from awqscope.app.dashboard.sections.gate.policy_form import check_form, read_form
from awqscope.app.dashboard.urls import read_address
from awqscope.app.store import Store
from awqscope.app.words.gate.ship import Ship, write_ship
from awqscope.diagnose.gate.own import OWN_POLICY, load_own, remove_own, save_own
from awqscope.diagnose.gate.policy import Policy
from awqscope.mixedprec.errors import InputError

TRIED = "By the limits below, which are not saved"
UNTRIED = "The limits below cannot be judged as they are."
BAD_FIELD = "a field cannot be used, it says why"
FIELD = {"type": "limit", "field": ALL}


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the form: whoever may see a run may try a policy, and whoever may start anything may
    save it."""

    @app.callback(
        Output("policy-tried", "children"),
        Output("policy-answer", "children"),
        Output(FIELD, "error"),
        Input("policy-shown", "data"),
        State(FIELD, "id"),
        prevent_initial_call=True,
    )
    def try_policy(shown: Asked | None, fields: Sequence[Mapping[str, str]]) -> Any:
        if not shown:
            return no_update, no_update, [no_update] * len(fields)
        name = read_address(shown["path"], "").run
        try:
            asked = read_form(shown["values"], load_own(store.find(name)))
            said = [asked.problems.get(field["field"], "") for field in fields]
            if asked.policy is None:
                trouble = asked.trouble or BAD_FIELD
                return html.P(UNTRIED, className="note"), draw_ship(Ship("", trouble)), said
            verdict = store.verdicts.judge(name, asked.policy)
            return limits_table(verdict, TRIED), draw_ship(write_ship(verdict)), said
        except (InputError, LookupError) as error:
            untried = html.P(UNTRIED, className="note")
            return untried, draw_ship(Ship("", f"{error}")), [""] * len(fields)

    if jobs is None:
        return

    @app.callback(
        Output("policy-said", "children"),
        Input("policy-asked", "data"),
        prevent_initial_call=True,
    )
    def save(asked: Asked | None) -> Any:
        if not asked:
            return no_update
        name = read_address(asked["path"], "").run
        try:
            save_policy(store, name, asked["values"])
        except (InputError, OSError, LookupError) as error:
            return f"Not saved: {error}."
        show_judged(store, jobs, name, f"Saved: {name} is judged by its own {OWN_POLICY} now.")
        return no_update

    @app.callback(
        Output("policy-said", "children", allow_duplicate=True),
        Input({"type": "policy-reset", "name": ALL}, "submit_n_clicks"),
        prevent_initial_call=True,
    )
    def reset(_clicks: Sequence[int | None]) -> Any:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:
            return no_update
        name = str(ctx.triggered_id["name"])
        try:
            remove_own(store.find(name))
        except (OSError, LookupError) as error:
            return f"Not removed: {error}."
        show_judged(store, jobs, name, f"{name} is judged by the default policy again.")
        return no_update


def save_policy(store: Store, name: str, values: Mapping[str, Any]) -> Policy:
    """Save what a form holds beside a run. InputError where it cannot be used, or the run cannot be
    judged by it."""
    run = store.find(name)
    policy = check_form(values, load_own(run))
    store.verdicts.judge(name, policy)
    save_own(run, policy)
    return policy


def show_judged(store: Store, jobs: Jobs, name: str, said: str) -> None:
    """Have the head and the card of a run's page say what it is judged by now."""
    head = draw_judgement(store.verdicts.find(name))
    card = gate_card(store, store.summary(name), jobs, is_open=True, said=said)
    set_props("ship", {"children": add_hints(head)})
    set_props(LIMITS, {"children": add_hints(card)})
