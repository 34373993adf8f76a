"""May it ship? A gate's verdict in one sentence, with the one limit that decided it."""

import math
from collections import Counter
from dataclasses import dataclass

from awqscope.app.words.gate.lines import (
    SIGNS,
    clean,
    stays_below,
    write_bound,
    write_limit,
    write_title,
    write_value,
)
from awqscope.diagnose.gate.criteria import PROOF, TASKS
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, Check, GateVerdict
from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.words import join_words

QUESTION = "May it ship?"
WORDS = {PASS: "May ship", FAIL: "May not ship", INCONCLUSIVE: "Undecided"}
NOT_JUDGED = "Not judged"
# What is said of the limits besides the one that decided, one of them and several.
OTHERS = {
    FAIL: ("is not held", "are not held"),
    INCONCLUSIVE: ("is undecided", "are undecided"),
}


@dataclass(frozen=True)
class Ship:
    """Whether a run may ship. outcome: the gate's, or nothing where it did not judge. why: the
    limit that decided, or why nothing was judged. rest: how the others stand; of a run that may
    ship, which is nearest to its limit."""

    outcome: str
    why: str
    rest: str = ""

    @property
    def answer(self) -> str:
        """The answer alone, in a word or three."""
        return WORDS.get(self.outcome, NOT_JUDGED)

    @property
    def sign(self) -> str:
        return SIGNS.get(self.outcome, "○")

    @property
    def sentence(self) -> str:
        """The answer and what decided it."""
        return f"{self.answer}: {self.why}"


def write_ship(verdict: GateVerdict) -> Ship:
    """The verdict in a sentence. Of several limits that decide alike, the one is named of whose
    room most is used."""
    deciding = [check for check in verdict.checks if check.outcome == verdict.outcome]
    first = max(deciding, key=use_room)
    if verdict.outcome == PASS:
        total = len(verdict.checks)
        hold = f"all {total} limits hold" if total > 1 else "the only limit holds"
        return Ship(PASS, hold, _write_nearest(first, verdict) if total > 1 else "")
    why = _write_failed(first, verdict)
    if verdict.outcome == INCONCLUSIVE:
        why = _write_undecided(first, verdict)
    return Ship(verdict.outcome, clean(why), _count_others(verdict))


def use_room(check: Check) -> float:
    """How much of a limit's room a number uses, from none at the best value there is to 1 at the
    limit; above 1 beyond it. A proof that is not there uses infinitely much, and a number that is
    not known more than any that is."""
    criterion, limit, finding = check.limit.criterion, check.limit.value, check.finding
    if finding is None or criterion.form == PROOF:
        return 0.0 if check.outcome == PASS else math.inf
    best = criterion.least if criterion.upper else criterion.most
    if math.isinf(best):
        # Without a best value the number counts by how far the limit is below it.
        return as_cost(limit / finding.value if finding.value else math.inf)
    room, used = abs(limit - best), abs(finding.value - best)
    return as_cost(used / room if room else math.inf * used if used else 0.0)


def _name(check: Check, verdict: GateVerdict) -> str:
    """What a limit's number is called, with the text or block that it is of."""
    criterion, finding = check.limit.criterion, check.finding
    if criterion.section == TASKS:
        return write_title(check)
    several = verdict.evidence.numbers.get(criterion.measure, ())
    if finding is None or not finding.of or isinstance(several, Missing) or len(several) < 2:
        return criterion.spoken
    return f"{criterion.spoken} ({finding.of})"


def _write_failed(check: Check, verdict: GateVerdict) -> str:
    """Which limit is not held, and by what number."""
    finding, criterion = check.finding, check.limit.criterion
    if finding is None or criterion.form == PROOF:
        return check.reason or "the proof is missing"
    side = "above" if stays_below(criterion) else "below"
    value = write_value(finding, criterion)
    return f"{_name(check, verdict)} {value} is {side} {write_limit(check)}"


def _write_undecided(check: Check, verdict: GateVerdict) -> str:
    """Which limit is undecided, why, and what would decide it."""
    finding, criterion = check.finding, check.limit.criterion
    if finding is None:
        return f"{_name(check, verdict)} is not known ({check.reason})"
    if not finding.is_known:
        return f"{_name(check, verdict)} is not a number"
    side = "above" if stays_below(criterion) else "below"
    value = write_value(finding, criterion)
    said = f"{_name(check, verdict)} {value} may be {side} {write_limit(check)}"
    return f"{said}; {check.reason}" if check.reason else said


def _write_nearest(check: Check, verdict: GateVerdict) -> str:
    """The number that is nearest to its limit."""
    finding, criterion = check.finding, check.limit.criterion
    if finding is None or criterion.form == PROOF:
        return ""
    value = write_value(finding, criterion)
    return f"nearest to its limit is {_name(check, verdict)}, {value} ({write_bound(check)})"


def _count_others(verdict: GateVerdict) -> str:
    """How the limits besides the one that decided stand; nothing of those that hold."""
    counts = Counter(check.outcome for check in verdict.checks)
    counts[verdict.outcome] -= 1
    parts = [
        f"{counts[outcome]} {words[counts[outcome] > 1]}"
        for outcome, words in OTHERS.items()
        if counts[outcome]
    ]
    return f"of the other limits {join_words(parts)}" if parts else ""
