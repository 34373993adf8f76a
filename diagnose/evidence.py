"""What a gate knows of a finished run: numbers with intervals, and why those that lack do.

Reads the run directory only, and of its token table only the columns that are judged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diagnose.findings import (
    LEAST_WINDOWS,
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
from diagnose.rundir import RunDirectory, is_comparison
from diagnose.type_words import UNLIKE
from mixedprec.dtypes import LARGEST
from mixedprec.errors import InputError
from mixedprec.recipe import load_recipe
from mixedprec.scheme import FP16_BITS

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
ENDS = ("", "_low", "_high")
SAME = ("tokens_sha256", "windows", "seq_len")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What is known of one model of one run.

    run, baseline: their directories; subject: mixed or uniform, or the candidate of a comparison,
    which is all that can be judged there. windows: of `seq_len` tokens each;
    scored_tokens in all. numbers: measure -> one finding, or one for each text or block of which
    the worst decides, or why there is none.
    """

    run: str
    subject: str
    baseline: str | None
    windows: int
    seq_len: int
    scored_tokens: int
    numbers: Findings


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
    record = run.read()
    if record.get("state") != "done":
        state = "it failed" if record.get("state") == "failed" else f"it is {record.get('state')}"
        raise InputError(
            f"{run.path} is not finished ({state})",
            "finish it first: the command that began it goes on with it",
        )
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
    numbers["block_share"] = _read_block_shares(run, record, model)
    if not compared:
        numbers["proof"] = (_read_proof(run),)
    if baseline is not None:
        numbers |= _read_drift(run, record, subject, baseline)
    return Evidence(
        str(run.path),
        CANDIDATE if compared else subject,
        None if baseline is None else str(baseline.path),
        definition["windows"],
        definition["seq_len"],
        definition["windows"] * (definition["seq_len"] - 1),
        numbers,
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
    """1 where proof.json is there and says passed, else 0. Where the type is why it failed, that is
    said."""
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
    if not part or not whole:
        return Missing("its size was not measured")
    return (Finding(part / whole, part / whole, part / whole),)


def _read_block_shares(
    run: RunDirectory, record: Row, subject: str
) -> tuple[Finding, ...] | Missing:
    for name in ("blocks.parquet", *(["units.parquet", "recipe.json"] * (subject == "mixed"))):
        if not (run.path / name).exists():
            return Missing(f"{run.path / name} is missing")
    rows = run.read_table("blocks", ["block", "view", *_kl_columns("")]).to_pylist()
    bits: Mapping[str, int] = {}
    units: Sequence[Row] = []
    if subject == "mixed":
        bits = load_recipe(run.path / "recipe.json").bits
        columns = ["unit", "bits", *_kl_columns("exact_"), *_kl_columns("estimated_")]
        units = run.read_table("units", columns).to_pylist()
    definition = record["ppl_definition"]
    scored = definition["seq_len"] - 1
    return block_shares(
        [row for row in rows if row["view"] == "isolated"],
        units,
        bits,
        record["spec"],
        (definition["windows"] * scored, LEAST_WINDOWS * scored),
    )


def _kl_columns(known: str) -> list[str]:
    return [f"{known}kl{end}" for end in ENDS]


def block_shares(
    isolated: Sequence[Row],
    units: Sequence[Row],
    bits: Mapping[str, int],
    spec: Row,
    scored: tuple[int, int],
) -> tuple[Finding, ...] | Missing:
    """Each block's isolated KL over the sum of all.

    isolated: rows of blocks.parquet. units, bits: rows of units.parquet and a recipe; a block whose
    widths the recipe changes costs the sum of its units at these widths, exact where measured. The
    bounds are outer ones: a block's upper bound among the others' lower bounds, and the reverse.
    They cover at least as often as the blocks' own. scored: tokens, and the least to bound it.
    """
    costs = {row["block"]: [row[f"kl{end}"] for end in ENDS] for row in isolated}
    plain = {unit: FP16_BITS if unit in spec["keep_fp16"] else spec["bits"] for unit in bits}
    changed = {int(unit.partition(".")[0]) for unit in bits if bits[unit] != plain[unit]}
    at = {(row["unit"], row["bits"]): row for row in units}
    for block in changed:
        mine = [unit for unit in bits if int(unit.partition(".")[0]) == block]
        # At 16 bits a unit is the reference's; runs of earlier versions have no row for it.
        wanted = [(unit, bits[unit]) for unit in mine if bits[unit] != FP16_BITS]
        absent = [unit for unit, width in wanted if (unit, width) not in at]
        if absent:
            return Missing(f"unit {absent[0]} was not measured at {bits[absent[0]]} bits")
        costs[block] = [sum(_unit_kl(at[key], end) for key in wanted) for end in ENDS]
    if not costs:
        return Missing("no block was measured")
    sums = [sum(max(0.0, cost[end]) for cost in costs.values()) for end in range(3)]
    found = []
    for block, cost in sorted(costs.items()):
        value, low, high = (max(0.0, part) for part in cost)
        others = [total - mine for total, mine in zip(sums, (value, low, high), strict=True)]
        share, least, most = (
            mine / (mine + rest) if mine + rest > 0 else 0.0
            for mine, rest in ((value, others[0]), (low, others[2]), (high, others[1]))
        )
        if scored[0] < scored[1]:
            least, most = -math.inf, math.inf
        found.append(Finding(share, least, most, *scored, of=f"block {block}"))
    return tuple(found)


def _unit_kl(row: Row, end: str) -> float:
    """A unit's KL or a bound of it: exact where it was measured, else estimated."""
    return row[f"{'estimated' if row['exact_kl'] is None else 'exact'}_kl{end}"]


def _read_drift(run: RunDirectory, record: Row, subject: str, baseline: RunDirectory) -> Findings:
    """The run against its baseline. InputError where they were not measured on the same tokens."""
    other = read_finished(baseline)
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
