"""What a gate knows of a finished run: numbers with intervals, and why a number is missing.

Reads the run directory only, and of its token table only the columns that are judged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from awqscope.diagnose.gate.findings import (
    Finding,
    Findings,
    Measured,
    Missing,
    Slice,
    compare_measured,
    judge_measured,
    read_measured,
    score_columns,
)
from awqscope.diagnose.gate.shares import block_shares, read_block_costs
from awqscope.diagnose.runs.directory import RunDirectory, is_comparison
from awqscope.diagnose.runs.type_words import UNLIKE
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import LARGEST

# What is read of run.json, and what it must be.
NEEDED: Mapping[str, Mapping[str, type]] = {
    "ppl_definition": {
        "text": str,
        "text_sha256": str,
        "tokens_sha256": str,
        "windows": int,
        "seq_len": int,
    },
    "spec": {"seed": int},
    "headline": {"bytes": dict},
}
# What is read besides of a run that has widths of its own.
NEEDED_OF_RUNS: Mapping[str, Mapping[str, type]] = {"spec": {"bits": int, "keep_fp16": list}}
CANDIDATE = "candidate"
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
    "slice_ppl_ratio",
    "slice_kl",
)
DRIFT_BY_TOKEN = ("ppl_drift", "kl_drift", "kl_p999_drift", "top1_drop")
SAME = ("tokens_sha256", "windows", "seq_len")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What is known of one model of one run.

    run, baseline: their directories. subject: which model of the run is judged: mixed or uniform,
    or the candidate of a comparison, which has no other. baseline_subject: which model of the
    baseline it is compared with. windows: of `seq_len` tokens each; scored_tokens in all. numbers:
    measure -> one finding, or one for each text or block of which the worst decides, or why there
    is none.
    """

    run: str
    subject: str
    baseline: str | None
    windows: int
    seq_len: int
    scored_tokens: int
    numbers: Findings
    baseline_subject: str | None = None


@dataclass(frozen=True)
class TokenEvidence:
    """What the token table says of one model; all that takes time to find."""

    numbers: Findings

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 500 * sum(1 if isinstance(f, Missing) else len(f) for f in self.numbers.values())


def read_finished(run: RunDirectory) -> dict[str, Any]:
    """run.json of a run that is done. InputError for one that is not, and for a damaged record."""
    record = run.look()
    if record["state"] != "done":
        said = UNFINISHED.get(record["state"], f"it is {record['state']}")
        raise InputError(f"{run.path} is not finished ({said})", run.how_to_finish())
    needed = [*NEEDED.items(), *(() if is_comparison(record) else NEEDED_OF_RUNS.items())]
    for entry, kinds in needed:
        for key, kind in kinds.items():
            holder = record.get(entry)
            if not isinstance(holder, dict) or not isinstance(holder.get(key), kind):
                raise InputError(
                    f"{run.path / 'run.json'} has no usable {entry}.{key}", "run it again elsewhere"
                )
    return record


def choose_model(record: Row, subject: str) -> str:
    """The name by which a run's files have what is judged: a candidate is in uniform's place."""
    return "uniform" if is_comparison(record) else subject


def read_token_evidence(run: RunDirectory, record: Row, subject: str) -> TokenEvidence:
    """The numbers of a model by the run's own tokens. InputError for a token table that is missing,
    damaged or not the run's."""
    definition = record["ppl_definition"]
    scores = _read_scores(run, definition, choose_model(record, subject))
    whole = {"text": definition["text"], "first_window": 0, "windows": definition["windows"]}
    slices = [
        Slice(part["text"], part["first_window"], part["windows"])
        for part in definition.get("slices", [whole])
    ]
    if sum(part.windows for part in slices) != definition["windows"]:
        raise InputError(
            f"{run.path / 'run.json'}: its slices are not its windows", "run it again elsewhere"
        )
    if isinstance(scores, Missing):
        return TokenEvidence(dict.fromkeys(BY_TOKEN, _explain(scores, record)))
    return TokenEvidence(judge_measured(scores, slices, record["spec"]["seed"]))


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
    definition = record["ppl_definition"]
    numbers = dict((by_token or read_token_evidence(run, record, subject)).numbers)
    compared = is_comparison(record)
    model = choose_model(record, subject)
    numbers["size_ratio"] = _divide(_bytes(record, model), _bytes(record, "reference"))
    numbers["range_margin"] = _read_margin(record)
    costs = read_block_costs(run, record, model)
    numbers["block_share"] = (
        costs
        if isinstance(costs, Missing)
        else block_shares(costs, definition["windows"], definition["seq_len"] - 1)
    )
    if not compared:
        numbers["proof"] = (_read_proof(run),)
    baseline_subject = None
    if baseline is not None:
        other = read_finished(baseline)
        numbers |= _read_drift(run, record, subject, baseline, other)
        baseline_subject = CANDIDATE if is_comparison(other) else subject
    return Evidence(
        str(run.path),
        CANDIDATE if compared else subject,
        None if baseline is None else str(baseline.path),
        definition["windows"],
        definition["seq_len"],
        definition["windows"] * (definition["seq_len"] - 1),
        numbers,
        baseline_subject,
    )


def _read_scores(run: RunDirectory, definition: Row, subject: str) -> Measured | Missing:
    path = run.path / "tokens.parquet"
    if not path.exists():
        raise InputError(f"{run.path} has no tokens.parquet", "copy the whole run directory")
    table = run.read_table("tokens", score_columns(subject))
    windows, length = definition["windows"], definition["seq_len"]
    if table.num_rows != windows * length:
        raise InputError(
            f"{path} is not this run's: it has {table.num_rows:,} tokens, not {windows} × {length}",
            "copy the whole run directory again",
        )
    return read_measured(table, subject, windows, length)


def _explain(missing: Missing, record: Row) -> Missing:
    """Why there is no checkpoint, if the run says so."""
    stages = (record.get("stages", {}).get(stage, {}) for stage in ("requantize", "proof"))
    reasons = [stage["reason"] for stage in stages if stage.get("reason")]
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


def _read_margin(record: Row) -> tuple[Finding, ...] | Missing:
    """How many times the largest activation the largest number of the served type is; of any
    recipe, by the uniform model. Exact: it is of this text."""
    largest = ((record["headline"].get("range") or {}).get("uniform") or {}).get("largest")
    kind = (record.get("serving") or {}).get("type") or record.get("source") or {}
    most = LARGEST.get(str(kind.get("dtype")))
    if most is None or not isinstance(largest, int | float):
        return Missing("the largest activation was not measured")
    margin = most / largest if largest > 0 else math.inf
    return (Finding(margin, margin, margin),)


def _bytes(record: Row, model: str) -> float | None:
    size = record["headline"]["bytes"].get(model)
    return size if isinstance(size, int | float) else None


def _divide(part: float | None, whole: float | None) -> tuple[Finding, ...] | Missing:
    """A ratio of two sizes, which are exact."""
    if not (part and whole and 0 < part < math.inf and 0 < whole < math.inf):
        return Missing("its size was not measured")
    return (Finding(part / whole, part / whole, part / whole),)


def _read_drift(
    run: RunDirectory, record: Row, subject: str, baseline: RunDirectory, other: Row
) -> Findings:
    """The run against its baseline: the same subject of both, a comparison's candidate in the place
    of either. InputError where they were not measured on the same tokens."""
    mine, theirs = record["ppl_definition"], other["ppl_definition"]
    differing = [key for key in SAME if mine[key] != theirs[key]]
    if differing:
        raise InputError(
            f"{run.path} and {baseline.path} were not measured on the same tokens "
            f"({_explain_difference(mine, theirs)})",
            "run both with the same --valid, --windows and --seq-len",
        )
    models = choose_model(record, subject), choose_model(other, subject)
    size = _divide(_bytes(record, models[0]), _bytes(other, models[1]))
    here, there = (
        _read_scores(found, mine, model)
        for found, model in zip((run, baseline), models, strict=True)
    )
    if isinstance(here, Missing) or isinstance(there, Missing):
        why = here if isinstance(here, Missing) else Missing(f"baseline: {_reason(there)}")
        return {**dict.fromkeys(DRIFT_BY_TOKEN, why), "size_drift": size}
    return {**compare_measured(here, there, record["spec"]["seed"]), "size_drift": size}


def _reason(scores: Measured | Missing) -> str:
    return scores.reason if isinstance(scores, Missing) else ""


def _explain_difference(mine: Row, theirs: Row) -> str:
    """What makes the tokens of two runs differ, in words."""
    for key, what in (("seq_len", "windows of {} and {} tokens"), ("windows", "{} and {} windows")):
        if mine[key] != theirs[key]:
            return what.format(mine[key], theirs[key])
    if mine["text_sha256"] != theirs["text_sha256"]:
        return "another text"
    return "the same text in other tokens: another tokenizer"
