"""One model among others: its size and its numbers, each with its interval, and what the gate says.

The numbers are those that the gate judges, so that no two places tell different intervals of one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from awqscope.diagnose.gate.evidence import (
    BY_TOKEN,
    TokenEvidence,
    read_finished,
    read_token_evidence,
)
from awqscope.diagnose.gate.findings import Finding, Findings, Missing
from awqscope.diagnose.gate.own import load_own
from awqscope.diagnose.gate.paired import Side
from awqscope.diagnose.gate.shares import Cost
from awqscope.diagnose.gate.verdict import GateVerdict, judge_run
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import MIXED, UNIFORM, Comparison, Record
from awqscope.diagnose.runs.scores import change_by_groups, read_group_rows
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Grouped, Width, bits_of

NO_UNITS = Missing("a candidate's blocks are swapped whole: its units have no KL of their own")


@dataclass(frozen=True)
class Standing:
    """A model with all that is known of it alone. bytes: of all its weights. bits_per_weight: of
    its units, scales and zero points counted. ppl, kl: as the record has them. numbers: as the
    gate has them, or why they are missing. None for what is not known."""

    side: Side
    bytes: int | None
    bits_per_weight: float | None
    ppl: float | None
    kl: float | None
    numbers: Findings

    def number(self, measure: str) -> Finding | Missing:
        """The number of a measure of `diagnose.gate.evidence`; of several texts the worst."""
        found = self.numbers.get(measure, Missing("it was not measured"))
        if isinstance(found, Missing):
            return found
        return max(found, key=lambda one: one.value if one.is_known else math.inf)

    @property
    def has_finished(self) -> bool:
        """Whether its run is done: until then its numbers may change, and it has no checkpoint that
        was proved."""
        return self.side.record.state == "done"

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 4000


def read_standing(side: Side, by_token: TokenEvidence | None = None) -> Standing:
    """What is known of a model alone. by_token: what `read_token_evidence` gives, where it is known
    already. InputError for tables that are damaged."""
    measured = side.record.measured
    numbers: Findings
    if by_token is not None:
        numbers = by_token.numbers
    else:
        try:
            numbers = read_token_evidence(side.run, read_finished(side.run), side.model).numbers
        except InputError as error:
            numbers = dict.fromkeys(BY_TOKEN, Missing(error.what))
    return Standing(
        side,
        measured.bytes.of(side.model),
        read_bits_per_weight(side),
        measured.ppl.of(side.model),
        measured.kl.of(side.model),
        numbers,
    )


def read_bits_per_weight(side: Side) -> float | None:
    """Bits a weight of a model's units, scales and zero points counted; None where the run, of an
    earlier version, does not say how many weights they have."""
    if not (side.run.path / "units.parquet").exists():
        return None
    rows = side.run.read_table("units", ["unit", "bits", "bytes"]).to_pylist()
    record = side.record
    if isinstance(record, Comparison):
        weights = record.candidate.unit_weights
        return 8 * sum(row["bytes"] for row in rows) / weights if weights else None
    sizes = {(row["unit"], row["bits"]): row["bytes"] for row in rows}
    units = {unit for unit, _ in sizes}
    if not units or any((unit, FP16_BITS) not in sizes for unit in units):
        return None
    kept = set(record.spec.keep_fp16)
    low = record.spec.bits
    taken = sum(sizes[unit, FP16_BITS if unit in kept else low] for unit in units)
    if side.model == MIXED:
        # Whatever the recipe changes, nothing beside the units has another size for it.
        size = record.measured.bytes
        taken += (size.of(MIXED) or 0) - (size.of(UNIFORM) or 0)
    return 8 * taken / (sum(sizes[unit, FP16_BITS] for unit in units) / 2)


def read_unit_costs(side: Side) -> Mapping[str, Cost] | Missing:
    """Each unit's KL in a model, exact where it was measured, else estimated, with its bounds; why
    there is none where there is none. In groups of another size than the run's own it is scaled as
    recipes are chosen by it."""
    record, run = side.record, side.run
    if not isinstance(record, Record):
        return NO_UNITS
    for name in ("units.parquet", "recipe.json"):
        if not (run.path / name).exists():
            return Missing(f"the run has no {name}")
    recipe = load_recipe(run.path / "recipe.json").in_own_groups(record.spec.low.group_size)
    kept = record.spec.keep_fp16
    widths: dict[str, Width] = {
        unit: width if side.model == MIXED else FP16_BITS if unit in kept else record.spec.bits
        for unit, width in recipe.widths.items()
    }
    return _cost_units(run, widths)


def _cost_units(run: RunDirectory, widths: Mapping[str, Width]) -> Mapping[str, Cost] | Missing:
    ends = ("", "_low", "_high")
    columns = [
        "unit",
        "bits",
        *(f"{known}_kl{end}" for known in ("exact", "estimated") for end in ends),
    ]
    rows = {(row["unit"], row["bits"]): row for row in run.read_table("units", columns).to_pylist()}
    ratios = {
        (row["unit"], Grouped(row["bits"], row["group_size"])): change_by_groups(row)
        for row in read_group_rows(run)
    }
    costs: dict[str, Cost] = {}
    for unit, width in widths.items():
        if bits_of(width) == FP16_BITS:
            costs[unit] = (0.0, 0.0, 0.0)
            continue
        row = rows.get((unit, bits_of(width)))
        ratio = ratios.get((unit, width)) if isinstance(width, Grouped) else 1.0
        if row is None or ratio is None:
            return Missing(f"unit {unit} was not measured at {width}")
        known = "estimated" if row["exact_kl"] is None else "exact"
        value, low, high = (ratio * row[f"{known}_kl{end}"] for end in ends)
        costs[unit] = (value, low, high)
    return costs


def weigh_side(side: Side) -> tuple[Standing, GateVerdict | Missing]:
    """A model alone and the gate's verdict on it, of one reading of its tokens."""
    try:
        by_token = read_token_evidence(side.run, read_finished(side.run), side.model)
    except InputError:
        # What is wrong is said where each of the two lacks it.
        by_token = None
    return read_standing(side, by_token), judge_side(side, by_token)


def judge_side(side: Side, by_token: TokenEvidence | None = None) -> GateVerdict | Missing:
    """The gate's verdict on a model by its run's own policy.toml, or by the default policy; why
    there is none where it cannot be judged. by_token: as of `read_standing`."""
    try:
        policy = load_own(side.run)
        if side.model in (MIXED, UNIFORM):
            policy = policy.of_model(side.model)
        return judge_run(side.run, policy, by_token=by_token)
    except InputError as error:
        return Missing(error.what)
