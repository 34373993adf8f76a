"""A gate's verdict in words, limit by limit: the same on the terminal, on pages, in reports and in
every file. All are made of the same lines, so that they cannot disagree."""

import math
from collections import Counter
from dataclasses import dataclass

from awqscope.diagnose.gate.criteria import LOST, PROOF, TASKS, Criterion
from awqscope.diagnose.gate.findings import Finding
from awqscope.diagnose.gate.own import OWN_POLICY, is_own
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, Check, GateVerdict, weigh
from awqscope.mixedprec.words import NOTHING, Written, join_written, write_chance, write_number

SIGNS = {PASS: "✓", FAIL: "✕", INCONCLUSIVE: "?"}
POINTS = " points"


@dataclass(frozen=True)
class Line:
    """A limit as a line of a table, all in words. interval: empty where the number is exact."""

    title: str
    value: str
    interval: str
    bound: str
    outcome: str
    note: str


def clean(text: str) -> str:
    """Text with everything replaced that cannot be printed: no terminal, browser or XML parser is
    to act on a name."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def write_line(check: Check) -> Line:
    """A limit, its number and what was decided."""
    criterion, finding = check.limit.criterion, check.finding
    value, interval = NOTHING, ""
    if finding is not None:
        value = write_value(finding, criterion)
        interval = _interval(finding, criterion)
    notes = list_notes(check)
    of = ", ".join(part for part in (notes["of"], f"p {notes['p']}" * bool(notes["p"])) if part)
    note = "; ".join(part for part in (of, notes["why"], notes["worst"]) if part)
    title, bound = clean(write_title(check)), write_bound(check)
    return Line(title, clean(value), interval, bound, check.outcome, clean(note))


def list_notes(check: Check) -> dict[str, str]:
    """What else is said of a limit's number: the text or block that it is of, its p value, why it
    was decided so, and the worst number where that did not decide."""
    finding = check.finding
    is_number = finding is not None and check.limit.criterion.form != PROOF
    return {
        "of": clean(_name(check, finding)) if finding and is_number else "",
        "p": write_chance(check.weighed.adjusted) if is_number and check.weighed else "",
        "why": clean(check.reason),
        "worst": _write_beyond(check),
    }


def write_title(check: Check) -> str:
    """What the limit is of; of a task that has no number, the task."""
    limit = check.limit
    if limit.criterion.section != TASKS or check.weighed is not None:
        return limit.criterion.title
    return f"{limit.criterion.title} {limit.of}" if limit.of else "Tasks"


def _interval(finding: Finding, criterion: Criterion) -> str:
    """The bounds of a number; empty where it is exact or none."""
    if criterion.form == PROOF or not (finding.tokens and finding.is_known):
        return ""
    ends = (finding.low, finding.high)
    bounds = [_number(b, criterion) for b in (ends[::-1] if criterion.form == LOST else ends)]
    values = [value for bound in bounds if isinstance(bound, Written) for value in bound.values]
    return Written(f"[{', '.join(bound.removesuffix(POINTS) for bound in bounds)}]", *values)


def _name(check: Check, finding: Finding) -> str:
    """The text or block that the number is of, and how many others have the same."""
    if not check.alike or not finding.of:
        return finding.of
    return f"{finding.of}, and the same in {check.alike} other{'s' * (check.alike > 1)}"


def _write_beyond(check: Check) -> str:
    """The worst number where it is not the one that decided; empty where it is."""
    if check.beyond is None:
        return ""
    criterion, of = check.limit.criterion, clean(check.beyond.of)
    value = join_written(write_value(check.beyond, criterion), _interval(check.beyond, criterion))
    does = "holds" if weigh(check.beyond, check.limit) == PASS else "is undecided"
    text = f"worst is {of} with {value}, which {does}"
    known = value.values if isinstance(value, Written) else ()
    return Written(text, *known, words=f"{of} {does}")


def write_value(finding: Finding, criterion: Criterion) -> str:
    """A finding's number; of a proof, what it found."""
    if criterion.form == PROOF:
        return finding.of.partition(":")[0]
    return _number(finding.value, criterion)


def _number(value: float, criterion: Criterion) -> str:
    if math.isnan(value):
        return NOTHING
    if criterion.form == LOST:
        value = 0.0 - value
    if math.isinf(value):
        return Written("∞" if value > 0 else "−∞", value)
    if criterion.form == LOST:
        return Written(write_number(100 * value, "+.2f") + POINTS, value)
    return write_number(value, criterion.form)


def stays_below(criterion: Criterion) -> bool:
    """Whether what is written of a number must stay below its limit: a share that was lost is
    written as points won."""
    return criterion.upper and criterion.form != LOST


def write_limit(check: Check) -> str:
    """The number that a limit sets, as its own numbers are written."""
    criterion, value = check.limit.criterion, check.limit.value
    if criterion.form == PROOF:
        return "passed"
    if criterion.form == LOST:
        return Written((f"−{100 * value:g}" if value else "0") + POINTS, 0.0 - value)
    return Written(f"{100 * value:g}%" if criterion.form.endswith("%") else f"{value:g}", value)


def write_bound(check: Check) -> str:
    """What the number must be."""
    criterion = check.limit.criterion
    if criterion.form == PROOF:
        return write_limit(check)
    side = "≤" if stays_below(criterion) else "≥"
    return join_written(side, write_limit(check), between="\N{NO-BREAK SPACE}")


def write_lines(verdict: GateVerdict) -> list[Line]:
    """Every limit, in the policy's order."""
    return [write_line(check) for check in verdict.checks]


def write_sentence(verdict: GateVerdict) -> str:
    """The verdict in a sentence."""
    counts = Counter(check.outcome for check in verdict.checks)
    total = len(verdict.checks)
    limits = f"{total} limit{'s' * (total > 1)}"
    if verdict.outcome == PASS:
        return f"Pass: {'all ' * (total > 1)}{limits} {'hold' if total > 1 else 'holds'}."
    said = {FAIL: "not held", INCONCLUSIVE: "undecided"}
    parts = [f"{counts[outcome]} {words}" for outcome, words in said.items() if counts[outcome]]
    return f"{verdict.outcome.capitalize()}: of {limits}, {' and '.join(parts)}."


def write_context(verdict: GateVerdict) -> str:
    """What was judged, by what, on how much."""
    evidence = verdict.evidence
    against = ""
    if evidence.baseline is not None:
        against = f", against the {evidence.baseline_subject} model of {evidence.baseline}"
    return clean(
        f"{evidence.run}: the {evidence.subject} model{against}, by the {_policy(verdict)}, on "
        f"{evidence.scored_tokens:,} scored tokens in {evidence.windows:,} windows."
    )


def _policy(verdict: GateVerdict) -> str:
    if is_own(verdict):
        return f"run's own policy ({OWN_POLICY} beside it)"
    return verdict.policy if verdict.policy.endswith("policy") else f"policy {verdict.policy}"
