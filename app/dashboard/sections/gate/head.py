"""May it ship? The answer at the head of a run's page, with the one limit that decided it."""

from typing import Any

from dash import html

from awqscope.app.store import RunSummary, Store
from awqscope.app.verdicts import Judgement
from awqscope.app.words.gate.ship import Ship
from awqscope.diagnose.gate.own import is_own
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS

TONES = {PASS: "good", FAIL: "bad", INCONCLUSIVE: "busy"}
# Where the limits stand on a run's page.
LIMITS = "gate"
UNFINISHED = {
    "running": "the run is under way",
    "starting": "the run is being started",
    "stopped": "the run was stopped before its end",
    "failed": "the run failed",
}


def ship_head(store: Store, run: RunSummary) -> html.Div:
    """Whether a run may ship, and by which policy; filled anew once another is saved."""
    if run.state != "done":
        said = Ship("", UNFINISHED.get(run.state, "its record cannot be read"))
        return html.Div(draw_ship(said), id="ship", className="ship")
    judged = store.verdicts.find(run.name)
    return html.Div(draw_judgement(judged), id="ship", className="ship")


def draw_judgement(judged: Judgement) -> list[Any]:
    """A verdict as the head of the page has it."""
    verdict = judged.verdict
    by = "the default policy" if verdict is None or not is_own(verdict) else "the run's own policy"
    limits = html.A("every limit", href=f"#{LIMITS}")
    return draw_ship(judged.ship, html.P(["By ", by, ": ", limits], className="note"))


def draw_ship(ship: Ship, *below: Any) -> list[Any]:
    """The answer by sign, word and colour, what decided, and how the other limits stand."""
    tone = TONES.get(ship.outcome, "quiet")
    return [
        html.P(
            [html.Strong(f"{ship.sign} {ship.answer}", className=f"mark {tone}"), f": {ship.why}"],
            className="answer",
        ),
        html.P(f"{begin(ship.rest)}.", className="note") if ship.rest else None,
        *below,
    ]


def begin(text: str) -> str:
    """A clause as the beginning of a sentence."""
    return text[:1].upper() + text[1:]
