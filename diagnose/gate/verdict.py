"""Whether a run may be released: evidence and policy in, verdict out.

A limit passes when the whole interval of its number is on the good side, the limit itself included;
it fails when the whole interval is on the bad side, and is inconclusive otherwise. A number that is
missing is inconclusive too, and so mostly is one of too few tokens, whose interval has no end. A
proof that is demanded and missing fails: it is a yes or no, and its absence is a no. There can be
none of a comparison's candidate, which was made elsewhere: none is demanded of it. Of several
texts or blocks all must pass, and one that fails is enough. The worst limit decides the verdict:
fail, then inconclusive, then pass.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from awqscope.diagnose.gate.evidence import NO_TASKS, Evidence, TokenEvidence, read_evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import DEFAULT_NAME, Limit, Policy, TaskLimits
from awqscope.diagnose.gate.tasks import TaskFinding, judge_tasks
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import CANDIDATE
from awqscope.diagnose.studies.tasks.pairing import Weighed
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.ranking import as_cost

RANGE = "range_margin"
PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}
# An interval that is this many times wider than the distance to the limit would take more text
# than there is.
MOST_HALVES = 1e4
# The worst first.
OUTCOMES = (FAIL, INCONCLUSIVE, PASS)


@dataclass(frozen=True)
class Check:
    """One limit, decided.

    finding: the number that decided it, if there is one; of several texts or blocks that decided
    it, the worst (see `_badness`), the first of equal ones. weighed: of a task, what it is of.
    alike: how many others have the very
    same number. beyond: the worst of all of them, where it decided nothing: a text that holds
    can have a larger number than one that too few tokens leave undecided. reason: why it did not
    pass, in words. tokens: how many scored tokens in all would decide an inconclusive one, all of
    its texts or blocks, if their numbers stay what they are; None where no number of them can be
    told. samples: the same of a task, in its samples.
    """

    limit: Limit
    outcome: str
    finding: Finding | None
    reason: str = ""
    tokens: int | None = None
    alike: int = 0
    beyond: Finding | None = None
    weighed: Weighed | None = None
    samples: int | None = None


@dataclass(frozen=True)
class GateVerdict:
    """What was decided of a run, limit by limit; every output is made of it. policy: its name.
    notes: what was not judged, in words."""

    outcome: str
    policy: str
    evidence: Evidence
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.outcome]


def judge_run(
    run: RunDirectory,
    policy: Policy,
    baseline: RunDirectory | None = None,
    by_token: TokenEvidence | None = None,
) -> GateVerdict:
    """The verdict on a finished run. by_token: what `read_token_evidence` gives, where it is known
    already. InputError for a run or baseline that cannot be judged, and for a baseline where the
    policy limits no drift."""
    if baseline is not None and not policy.has_drift:
        raise InputError(
            f"the policy {policy.name} holds nothing to a baseline",
            "set limits in [drift], or leave out --baseline",
        )
    return decide(policy, read_evidence(run, policy.subject, baseline, by_token))


def decide(policy: Policy, evidence: Evidence) -> GateVerdict:
    """Hold evidence to a policy. InputError where nothing would be judged."""
    limits = policy.limits
    notes: tuple[str, ...] = ()
    if evidence.baseline is None and policy.has_drift and policy.drift_optional:
        limits = tuple(limit for limit in limits if limit.criterion.section != "drift")
        notes = ("Drift was not judged: no baseline was given.",)
    if evidence.subject == CANDIDATE and any(_is_proof(limit) for limit in limits):
        limits = tuple(limit for limit in limits if not _is_proof(limit))
        notes += ("No proof was asked for: the candidate was measured as it is on disk.",)
    unknown = isinstance(evidence.numbers.get(RANGE), Missing)
    if policy.name == DEFAULT_NAME and unknown:
        limits = tuple(limit for limit in limits if limit.criterion.measure != RANGE)
        notes += ("The range margin was not judged: the run did not measure it.",)
    checks = tuple(_check(limit, evidence) for limit in limits)
    tasks = policy.tasks
    if tasks.optional and evidence.tasks == NO_TASKS:
        if tasks.every is not None:
            notes += (f"Tasks were not judged: {NO_TASKS.reason}.",)
        # Those that the policy names were to be run.
        tasks = replace(tasks, every=None)
    checks += check_tasks(tasks, evidence)
    if not checks:
        raise InputError(f"the policy {policy.name} judges nothing here", "set a limit in [limits]")
    found = {check.outcome for check in checks}
    outcome = next(outcome for outcome in OUTCOMES if outcome in found)
    return GateVerdict(outcome, policy.name, evidence, checks, notes)


def _is_proof(limit: Limit) -> bool:
    return limit.criterion.measure == "proof"


def _check(limit: Limit, evidence: Evidence) -> Check:
    """One limit, decided by the findings of its measure."""
    findings = evidence.numbers.get(limit.criterion.measure, Missing("it was not measured"))
    if limit.criterion.section == "drift" and evidence.baseline is None:
        findings = Missing("no baseline was given")
    if isinstance(findings, Missing):
        return Check(limit, INCONCLUSIVE, None, findings.reason)
    outcomes = [weigh(finding, limit) for finding in findings]
    outcome = next(outcome for outcome in OUTCOMES if outcome in outcomes)
    deciding = [f for f, found in zip(findings, outcomes, strict=True) if found == outcome]
    worst = max(deciding, key=lambda finding: _badness(finding, limit))
    of_all = max(findings, key=lambda finding: _badness(finding, limit))
    side, tokens = "above" if limit.criterion.upper else "below", None
    if outcome == INCONCLUSIVE:
        tokens = tokens_to_decide(deciding, limit, evidence.scored_tokens)
        reason = _explain(deciding, worst, evidence, tokens)
    elif outcome == FAIL:
        said = f"surely {side} the limit"
        reason = f"the proof is {worst.of}" if _is_proof(limit) else said
    else:
        reason = ""
    alike = sum(finding.value == worst.value for finding in deciding) - worst.is_known
    beyond = of_all if of_all.is_known and of_all.value != worst.value else None
    return Check(limit, outcome, worst, reason, tokens, alike, beyond)


def check_tasks(policy: TaskLimits, evidence: Evidence) -> tuple[Check, ...]:
    """The limits on tasks, each decided."""
    return tuple(_check_task(found) for found in judge_tasks(policy, evidence))


def _check_task(found: TaskFinding) -> Check:
    """The limit on one task, decided by the interval of its drop."""
    limit, finding = found.limit, found.finding
    if isinstance(finding, Missing):
        return Check(limit, INCONCLUSIVE, None, finding.reason)
    outcome = weigh(finding, limit)
    reason, samples = "", None
    if outcome == FAIL:
        reason = "surely above the limit"
    elif outcome == INCONCLUSIVE:
        samples = found.samples
        reason = "the interval reaches across the limit"
        if samples is not None:
            reason = f"about {_round_up(samples):,} samples would decide"
    return Check(limit, outcome, finding, reason, weighed=found.weighed, samples=samples)


def weigh(finding: Finding, limit: Limit) -> str:
    """pass, fail or inconclusive: on which side of the limit the interval is."""
    low, high = finding.low, finding.high
    if limit.criterion.upper:
        good, bad = high <= limit.value, low > limit.value
    else:
        good, bad = low >= limit.value, high < limit.value
    return PASS if good else FAIL if bad else INCONCLUSIVE


def tokens_to_decide(findings: Sequence[Finding], limit: Limit, scored: int) -> int | None:
    """How many scored tokens in all would decide inconclusive findings, if their numbers stay what
    they are and their intervals shrink as 1/√tokens; None where a number lies on its limit, or so
    near that no text would be long enough. Where the interval has no end, it is how many give it
    one. scored: tokens of the run; texts keep their shares of them."""
    needed = 0
    for finding in findings:
        gap = abs(limit.value - finding.value)
        leaning_good = (finding.value <= limit.value) == limit.criterion.upper
        upwards = leaning_good == limit.criterion.upper
        half = finding.high - finding.value if upwards else finding.value - finding.low
        if not finding.tokens or not 0 < gap < math.inf:
            return None
        halves = half / gap if math.isfinite(half) else 1.0
        if halves > MOST_HALVES:
            return None
        shrunk = halves**2
        more = max(shrunk, finding.least / finding.tokens)
        if not math.isfinite(scored * more):
            return None
        needed = max(needed, math.floor(scored * more) + 1)
    return needed


def _badness(finding: Finding, limit: Limit) -> tuple[float, float]:
    """How bad a number is among others of its kind: NaN before all others, then by the number
    itself, which is what is shown as the worst, and equal numbers by the bound on the
    bad side. Bounds come second because texts of few tokens all have infinite ones."""
    sign = 1 if limit.criterion.upper else -1
    return as_cost(sign * finding.value), as_cost(max(sign * finding.low, sign * finding.high))


def _explain(
    deciding: Sequence[Finding], worst: Finding, evidence: Evidence, tokens: int | None
) -> str:
    """Why a limit is not decided, and what would decide it, to two digits. deciding: all that are
    undecided, `worst` among them; the tokens are what all of them take."""
    if not worst.is_known:
        return "it is not a number"
    few = any(math.isinf(finding.high) or math.isinf(finding.low) for finding in deciding)
    if tokens is None:
        return "too few tokens to tell" if few else "the interval reaches across the limit"
    windows = math.ceil(tokens / max(1, evidence.seq_len - 1))
    said = f"about {_round_up(tokens):,} tokens ({windows:,} windows)"
    said = f"it takes {said}" if few else f"{said} would decide"
    return said + (f", for all {len(deciding)} that are undecided" if len(deciding) > 1 else "")


def _round_up(count: int) -> int:
    """A count to two digits, and not fewer."""
    digits: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / digits) * digits
