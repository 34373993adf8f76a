"""What a gate knows of a finished run: numbers with intervals, and why a number is missing.

Reads the run directory only, and of its token table only the columns that are judged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from awqscope.diagnose.entries.served_type import UNLIKE
from awqscope.diagnose.entries.source import PplDefinition
from awqscope.diagnose.gate.findings import (
    Finding,
    Findings,
    Measured,
    Missing,
    Slice,
    compare_measured,
    read_measured,
    score_columns,
)
from awqscope.diagnose.gate.shares import block_shares, read_block_costs
from awqscope.diagnose.gate.texts import RunNumbers, TextNumbers, number_texts
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import CANDIDATE, MIXED, UNIFORM, AnyRecord, Comparison
from awqscope.diagnose.studies.tasks.answer import Tasks, list_stale, read_tasks
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import LARGEST
from awqscope.mixedprec.words import join_words

UNFINISHED = {
    "running": "a process is at it",
    "stopped": "it was stopped before its end",
    "failed": "it failed",
}
BY_TOKEN = (
    "ppl_ratio",
    "delta_ppl",
    "kl",
    "kl_p999",
    "top1_agreement",
    "delta_p",
    "rms_delta_p",
    "slice_ppl_ratio",
    "slice_kl",
)
DRIFT_BY_TOKEN = ("ppl_drift", "kl_drift", "kl_p999_drift", "top1_drop")
SAME = ("tokens_sha256", "windows", "seq_len")
NO_TASKS = Missing("no task was run")


@dataclass(frozen=True)
class Evidence:
    """What is known of one model of one run.

    run, baseline: their directories. subject: which model of the run is judged: mixed or uniform,
    or the candidate of a comparison, which has no other. baseline_subject: which model of the
    baseline it is compared with. windows: of `seq_len` tokens each; scored_tokens in all. numbers:
    measure -> one finding, or one for each text or block of which the worst decides, or why there
    is none. texts: all numbers of the model by text, where there are several. tasks: the tasks that
    the run's models were given, or why there are none.
    """

    run: str
    subject: str
    baseline: str | None
    windows: int
    seq_len: int
    scored_tokens: int
    numbers: Findings
    baseline_subject: str | None = None
    texts: tuple[TextNumbers, ...] = ()
    tasks: Tasks | Missing = NO_TASKS


@dataclass(frozen=True)
class TokenEvidence:
    """What the token table says of one model; all that takes time to find. texts: its numbers by
    text, none where there is a single one."""

    numbers: Findings
    texts: tuple[TextNumbers, ...] = ()


def read_finished(run: RunDirectory) -> AnyRecord:
    """The record of a run that is done. InputError for one that is not, and for a damaged record,
    or one of a version that did not say which tokens it measured."""
    record = run.look()
    if record.state != "done":
        raise InputError(
            f"{run.path} is not finished ({UNFINISHED[record.state]})", run.how_to_finish()
        )
    lacking = [
        entry
        for entry, found in (
            ("ppl_definition.tokens_sha256", record.ppl_definition.tokens_sha256),
            ("headline", record.headline),
        )
        if found is None
    ]
    if lacking:
        raise InputError(
            f"{run.path / 'run.json'} has no usable {lacking[0]}", "run it again elsewhere"
        )
    return record


def choose_model(record: AnyRecord, subject: str) -> str:
    """The name by which a run's tables have what is judged: a candidate is in uniform's place."""
    return UNIFORM if isinstance(record, Comparison) else subject


def name_subject(record: AnyRecord, subject: str) -> str:
    """The model of a run that is judged where `subject` is asked for: a comparison has one only."""
    return CANDIDATE if isinstance(record, Comparison) else subject


def read_numbers(
    run: RunDirectory, record: AnyRecord, models: Sequence[str] | None = None
) -> RunNumbers:
    """The numbers of a run by its own tokens: of `models`, by default of all that it may have.
    InputError for a token table that is missing, damaged or not the run's."""
    definition = record.ppl_definition
    slices = [Slice(part.text, part.first_window, part.windows) for part in definition.slices] or [
        Slice(definition.text, 0, definition.windows)
    ]
    if sum(part.windows for part in slices) != definition.windows:
        raise InputError(
            f"{run.path / 'run.json'}: its slices are not its windows", "run it again elsewhere"
        )
    if models is None:
        models = (CANDIDATE,) if isinstance(record, Comparison) else (UNIFORM, MIXED)
    scores = {model: _read_scores(run, definition, choose_model(record, model)) for model in models}
    return number_texts(scores, slices, definition.text, record.spec.seed)


def take_evidence(numbers: RunNumbers, record: AnyRecord, subject: str) -> TokenEvidence:
    """What a gate takes of a run's numbers: those of the model that `subject` asks for."""
    model = name_subject(record, subject)
    missing = numbers.missing.get(model)
    if missing is not None:
        return TokenEvidence(dict.fromkeys(BY_TOKEN, _explain(missing, record)))
    texts = numbers.texts if len(numbers.texts) > 1 else ()
    return TokenEvidence(numbers.judge(model), texts)


def read_token_evidence(run: RunDirectory, record: AnyRecord, subject: str) -> TokenEvidence:
    """The numbers of a model by the run's own tokens. InputError for a token table that is missing,
    damaged or not the run's."""
    model = name_subject(record, subject)
    return take_evidence(read_numbers(run, record, [model]), record, subject)


def read_evidence(
    run: RunDirectory,
    subject: str,
    baseline: RunDirectory | None = None,
    by_token: TokenEvidence | None = None,
) -> Evidence:
    """Everything a policy can ask about a finished run. by_token: what `read_token_evidence` gives,
    where it is known already. InputError where the run or its baseline cannot be judged, and where
    they were not measured on the same tokens."""
    record = read_finished(run)
    definition = record.ppl_definition
    by_token = by_token or read_token_evidence(run, record, subject)
    numbers = dict(by_token.numbers)
    model, judged = choose_model(record, subject), name_subject(record, subject)
    numbers["size_ratio"] = _divide(_bytes(record, judged), _bytes(record, "reference"))
    numbers["range_margin"] = _read_margin(record)
    costs = read_block_costs(run, record, model)
    numbers["block_share"] = (
        costs
        if isinstance(costs, Missing)
        else block_shares(costs, definition.windows, definition.seq_len - 1)
    )
    if judged != CANDIDATE:
        numbers["proof"] = (_read_proof(run),)
    baseline_subject = None
    if baseline is not None:
        other = read_finished(baseline)
        numbers |= _read_drift(run, record, subject, baseline, other)
        baseline_subject = name_subject(other, subject)
    return Evidence(
        str(run.path),
        judged,
        None if baseline is None else str(baseline.path),
        definition.windows,
        definition.seq_len,
        definition.windows * (definition.seq_len - 1),
        numbers,
        baseline_subject,
        by_token.texts,
        _read_tasks(run, record, judged),
    )


def _read_tasks(run: RunDirectory, record: AnyRecord, subject: str) -> Tasks | Missing:
    """The tasks that were run beside the run; those of an earlier run in its place are none, and
    those that the mixed model of an earlier recipe was given say nothing of it (`subject`) now."""
    try:
        found = read_tasks(run, record.created)
    except InputError as error:
        return Missing(error.what)
    if found is None:
        return NO_TASKS
    stale = list_stale(found, run) if subject == MIXED else []
    if stale:
        return Missing(f"the mixed model was given {join_words(stale)} by another recipe")
    return found


def _read_scores(run: RunDirectory, definition: PplDefinition, subject: str) -> Measured | Missing:
    path = run.path / "tokens.parquet"
    if not path.exists():
        raise InputError(f"{run.path} has no tokens.parquet", "copy the whole run directory")
    table = run.read_table("tokens", score_columns(subject))
    windows, length = definition.windows, definition.seq_len
    if table.num_rows != windows * length:
        raise InputError(
            f"{path} is not this run's: it has {table.num_rows:,} tokens, not {windows} × {length}",
            "copy the whole run directory again",
        )
    return read_measured(table, subject, windows, length)


def _explain(missing: Missing, record: AnyRecord) -> Missing:
    """Why there is no checkpoint, if the run says so."""
    reasons = [why for stage in ("requantize", "proof") if (why := record.find_skipped(stage))]
    return Missing(f"no checkpoint was made: {reasons[0]}") if reasons else missing


def _read_proof(run: RunDirectory) -> Finding:
    """1 where proof.json is there and says passed, else 0, with a reason where it failed because
    of the served type."""
    proof = run.read_json("proof")
    passed = proof.get("passed")
    said = {True: "passed", None: "missing"}.get(passed, "failed")
    reasons = [] if passed else [each for each in proof.get("reasons", ()) if each != UNLIKE]
    said = ": ".join([said, *reasons])
    return Finding(float(passed is True), float(passed is True), float(passed is True), of=said)


def _read_margin(record: AnyRecord) -> tuple[Finding, ...] | Missing:
    """How many times the largest activation the largest number of the served type is; of any
    recipe, by the uniform model. Exact: it is of this text."""
    largest = record.measured.find_largest()
    kind = None if record.serving is None else record.serving.type
    most = LARGEST.get(record.source.dtype if kind is None else kind.dtype)
    if most is None or largest is None:
        return Missing("the largest activation was not measured")
    margin = most / largest if largest > 0 else math.inf
    return (Finding(margin, margin, margin),)


def _bytes(record: AnyRecord, model: str) -> int | None:
    return record.measured.bytes.of(model)


def _divide(part: float | None, whole: float | None) -> tuple[Finding, ...] | Missing:
    """A ratio of two sizes, which are exact."""
    if not (part and whole and 0 < part < math.inf and 0 < whole < math.inf):
        return Missing("its size was not measured")
    return (Finding(part / whole, part / whole, part / whole),)


def _read_drift(
    run: RunDirectory, record: AnyRecord, subject: str, baseline: RunDirectory, other: AnyRecord
) -> Findings:
    """The run against its baseline: the same subject of both, a comparison's candidate in the place
    of either. InputError where they were not measured on the same tokens."""
    mine, theirs = record.ppl_definition, other.ppl_definition
    if any(getattr(mine, entry) != getattr(theirs, entry) for entry in SAME):
        raise InputError(
            f"{run.path} and {baseline.path} were not measured on the same tokens "
            f"({_explain_difference(mine, theirs)})",
            "run both with the same --valid, --windows and --seq-len",
        )
    models = choose_model(record, subject), choose_model(other, subject)
    judged = name_subject(record, subject), name_subject(other, subject)
    size = _divide(_bytes(record, judged[0]), _bytes(other, judged[1]))
    here, there = (
        _read_scores(found, mine, model)
        for found, model in zip((run, baseline), models, strict=True)
    )
    if isinstance(here, Missing):
        return {**dict.fromkeys(DRIFT_BY_TOKEN, here), "size_drift": size}
    if isinstance(there, Missing):
        why = Missing(f"baseline: {there.reason}")
        return {**dict.fromkeys(DRIFT_BY_TOKEN, why), "size_drift": size}
    return {**compare_measured(here, there, record.spec.seed), "size_drift": size}


def _explain_difference(mine: PplDefinition, theirs: PplDefinition) -> str:
    """What makes the tokens of two runs differ, in words."""
    for key, what in (("seq_len", "windows of {} and {} tokens"), ("windows", "{} and {} windows")):
        one, other = getattr(mine, key), getattr(theirs, key)
        if one != other:
            return what.format(one, other)
    if mine.text_sha256 != theirs.text_sha256:
        return "another text"
    return "the same text in other tokens: another tokenizer"
