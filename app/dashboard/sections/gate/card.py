"""The release gate's verdict on a run with every limit: a view of what `awqscope gate` decides."""

import shlex
from typing import Any

from dash import html

from awqscope.app.dashboard.components import Hint
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.parts import card, command, notice, table
from awqscope.app.dashboard.sections.gate.head import LIMITS, TONES
from awqscope.app.dashboard.sections.gate.policy_form import policy_form, reset_button
from awqscope.app.store import RunSummary, Store
from awqscope.app.verdicts import Judgement
from awqscope.app.words.gate.lines import SIGNS, Line, list_notes, write_lines, write_sentence
from awqscope.app.words.gate.ship import write_ship
from awqscope.diagnose.gate.own import OWN_POLICY, find_own, is_own
from awqscope.diagnose.gate.verdict import Check, GateVerdict

TITLE = "May it ship? Every limit"
WIDER = (
    "What decides here are expanded intervals: a little wider than those of the numbers above, by "
    "as much as percentiles of so few windows are too narrow."
)
COLUMNS = {
    "title": "Number",
    "value": "Measured",
    "interval": "95%",
    "bound": "Limit",
    "verdict": "Verdict",
}
# What is saved of a number's name and of the note below it.
NOTES = {"name": "Number", "of": "Of", "p": "p", "why": "Note", "worst": "Worst"}


def gate_part(store: Store, run: RunSummary, jobs: Jobs | None) -> html.Div:
    """The gate's card where the head of the page leads to it; filled anew once one is saved."""
    return html.Div(gate_card(store, run, jobs), id=LIMITS)


def gate_card(
    store: Store,
    run: RunSummary,
    jobs: Jobs | None = None,
    *,
    is_open: bool = False,
    said: str = "",
) -> html.Section:
    """The verdict on a finished run by its own policy, or by the default one, and a form to try
    others. is_open: the form is shown. said: what was just done."""
    path = store.find(run.name).path
    again = html.P(
        ["In the terminal: ", command(shlex.join(["awqscope", "gate", str(path)]))],
        className="hint",
    )
    judged = store.verdicts.find(run.name)
    if judged.verdict is None:
        can_reset = jobs is not None and find_own(store.find(run.name)) is not None
        reset = reset_button(run.name) if can_reset else None
        heard = html.P(said, id="policy-said", className="said", role="status")
        return card(TITLE, refused(judged), reset, heard, again)
    verdict = judged.verdict
    return card(
        TITLE,
        html.Div(limits_table(verdict), id="policy-tried"),
        html.P(WIDER, className="note"),
        policy_form(store, run, verdict, jobs, is_open=is_open, said=said),
        again,
        summary=summarise(verdict),
        beside=verdict_mark(verdict.outcome),
    )


def refused(judged: Judgement) -> html.Div:
    """Why there is no verdict, and what to do."""
    fault = judged.fault
    assert fault is not None
    said = [html.P(fault.what), html.P(["Remedy: ", fault.remedy])]
    return notice("The gate cannot judge this run", *said)


def limits_table(verdict: GateVerdict, caption: str = "") -> Any:
    """Every limit of a verdict."""
    lines = zip(verdict.checks, write_lines(verdict), strict=True)
    rows = [verdict_row(check, line) for check, line in lines]
    return table(COLUMNS, rows, caption, apart={"title": NOTES})


def summarise(verdict: GateVerdict) -> str:
    """The verdict in words, and what was judged by what."""
    notes = "".join(f" {note}" for note in verdict.notes)
    policy = f"its own policy ({OWN_POLICY})" if is_own(verdict) else "the default policy"
    said = f"{write_sentence(verdict)} The {verdict.evidence.subject} model"
    return f"{said}, by {policy}; each limit is decided on the whole interval.{notes}"


def verdict_row(check: Check, line: Line) -> dict[str, Any]:
    """A limit as a line of the table."""
    title: list[Any] = [Hint(line.title, check.limit.criterion.meaning)]
    return {
        "title": [*title, html.Span(line.note, className="note")] if line.note else title,
        "value": line.value,
        "interval": line.interval,
        "bound": line.bound,
        "verdict": verdict_mark(line.outcome),
        "name": line.title,
        **list_notes(check),
    }


def ship_mark(verdict: GateVerdict) -> html.Span:
    """Whether a model may ship, by sign, words and colour; hovered over, the limit that decided."""
    ship = write_ship(verdict)
    mark = f"mark {TONES[ship.outcome]}"
    return html.Span(f"{ship.sign} {ship.answer}", className=mark, title=ship.why)


def verdict_mark(outcome: str) -> html.Span:
    """pass, fail or inconclusive, by sign, word and colour."""
    return html.Span(f"{SIGNS[outcome]} {outcome}", className=f"mark {TONES[outcome]}")
