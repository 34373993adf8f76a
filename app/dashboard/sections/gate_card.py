"""The release gate's verdict on a run: a view of what `awqscope gate` decides."""

import shlex
from typing import Any

from dash import html

from awqscope.app.dashboard.parts import card, command, notice, table
from awqscope.app.store import RunSummary, Store
from awqscope.app.terminal.gate import SIGNS, Line, write_lines, write_sentence
from awqscope.diagnose.gate.policy import load_policy
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, GateVerdict, judge_run
from awqscope.mixedprec.errors import InputError

TITLE = "Release gate"
TONES = {PASS: "good", FAIL: "bad", INCONCLUSIVE: "busy"}
COLUMNS = {
    "title": "Number",
    "value": "Measured",
    "interval": "95%",
    "bound": "Limit",
    "verdict": "Verdict",
}
OWN_POLICY = "policy.toml"


def gate_card(store: Store, run: RunSummary) -> Any:
    """The verdict on a finished run by its own policy.toml, or by the default policy."""
    path = store.find(run.name).path
    own = path / OWN_POLICY
    arguments = ["awqscope", "gate", str(path)]
    if own.is_file():
        arguments += ["--policy", str(own)]
    again = html.P(["In the terminal: ", command(shlex.join(arguments))], className="hint")
    try:
        policy = load_policy(own if own.is_file() else None)
        by_token = store.token_evidence(run.name, policy.subject)
        verdict = judge_run(store.find(run.name), policy, by_token=by_token)
    except InputError as error:
        said = [html.P(error.what), html.P(["Remedy: ", error.remedy])]
        return card(TITLE, notice("The gate cannot judge this run", *said), again)
    return card(
        TITLE,
        table(COLUMNS, [verdict_row(line) for line in write_lines(verdict)]),
        again,
        summary=summarise(verdict, "its own policy.toml" if own.is_file() else "default policy"),
        beside=verdict_mark(verdict.outcome),
    )


def summarise(verdict: GateVerdict, policy: str) -> str:
    """The verdict in words, and what was judged by what."""
    notes = "".join(f" {note}" for note in verdict.notes)
    said = f"{write_sentence(verdict)} The {verdict.evidence.subject} model"
    return f"{said}, by {policy}; each limit is decided on the whole interval.{notes}"


def verdict_row(line: Line) -> dict[str, Any]:
    """A limit as a line of the table."""
    return {
        "title": [line.title, html.Span(line.note, className="note")] if line.note else line.title,
        "value": line.value,
        "interval": line.interval,
        "bound": line.bound,
        "verdict": verdict_mark(line.outcome),
    }


def verdict_mark(outcome: str) -> html.Span:
    """pass, fail or inconclusive, by sign, word and colour."""
    return html.Span(f"{SIGNS[outcome]} {outcome}", className=f"mark {TONES[outcome]}")
