"""What a report says of the release: the gate's verdict, with every limit."""

from dataclasses import dataclass
from pathlib import PurePath

from awqscope.app.report.contents import Findings
from awqscope.app.report.pieces import Table
from awqscope.app.words.gate.lines import SIGNS, write_lines, write_sentence
from awqscope.app.words.gate.ship import Ship, write_ship
from awqscope.diagnose.gate.own import is_own
from awqscope.diagnose.gate.policy import DEFAULT_NAME
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS

LOOKS = {PASS: "good", FAIL: "bad", INCONCLUSIVE: "busy"}
COLUMNS = {
    "title": "Number",
    "value": "Measured",
    "interval": "95%",
    "bound": "Limit",
    "verdict": "Verdict",
    "note": "Of, and why",
}


@dataclass(frozen=True)
class ReleasePart:
    """Whether the run may ship, by sign and word, how that looks, and why; then what was judged by
    what, and the limits. Without a verdict: why the gate cannot judge the run."""

    answer: str
    look: str
    why: str
    sentence: str
    limits: Table | None


def release_part(found: Findings) -> ReleasePart:
    """The gate's verdict on a run."""
    verdict = found.release
    if isinstance(verdict, str):
        ship = Ship("", f"the gate cannot judge this run: {verdict}")
        return ReleasePart(f"{ship.sign} {ship.answer}", "quiet", ship.why, "", None)
    evidence = verdict.evidence
    # The directories that a policy is in are private, and need not be the same tomorrow.
    policy = verdict.policy
    by = f"the {policy}" if policy == DEFAULT_NAME else f"the policy {PurePath(policy).name}"
    by = "its own policy" if is_own(verdict) else by
    said = (
        f"{write_sentence(verdict)} The {evidence.subject} model, by {by}, on "
        f"{evidence.scored_tokens:,} scored tokens in {evidence.windows:,} windows; each limit is "
        "decided on the whole interval."
    )
    rows = [
        {
            "title": line.title,
            "value": line.value,
            "interval": line.interval,
            "bound": line.bound,
            "verdict": f"{SIGNS[line.outcome]} {line.outcome}",
            "note": line.note,
        }
        for line in write_lines(verdict)
    ]
    ship = write_ship(verdict)
    return ReleasePart(
        f"{ship.sign} {ship.answer}",
        LOOKS[verdict.outcome],
        "; ".join(part for part in (ship.why, ship.rest) if part),
        " ".join([said, *verdict.notes]),
        Table(COLUMNS, rows, "Limits of the release gate"),
    )
