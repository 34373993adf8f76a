"""What each block costs in one model of a run, and its share of all that the blocks cost.

Blocks are measured alone in the uniform model. The mixed one has other widths in some of them: such
a block costs the sum of its units at the recipe's widths.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from awqscope.diagnose.gate.findings import LEAST_WINDOWS, Finding, Missing
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import MIXED, AnyRecord, Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import FP16_BITS

ENDS = ("", "_low", "_high")
Row = Mapping[str, Any]
# KL and its bounds, in nats a token.
Cost = tuple[float, float, float]


def read_block_costs(run: RunDirectory, record: AnyRecord, model: str) -> dict[int, Cost] | Missing:
    """Each block's KL in one model of a run, by the name its files have for it; why there is none
    where there is none."""
    for name in ("blocks.parquet", *(["units.parquet", "recipe.json"] * (model == MIXED))):
        if not (run.path / name).exists():
            return Missing(f"the run has no {name}")
    rows = run.read_table("blocks", ["block", "view", *_kl_columns("")]).to_pylist()
    bits: Mapping[str, int] = {}
    plain: Mapping[str, int] = {}
    units: Sequence[Row] = []
    if model == MIXED and isinstance(record, Record):
        bits = load_recipe(run.path / "recipe.json").bits
        plain = uniform_widths(bits, record.spec)
        columns = ["unit", "bits", *_kl_columns("exact_"), *_kl_columns("estimated_")]
        units = run.read_table("units", columns).to_pylist()
    isolated = [row for row in rows if row["view"] == "isolated"]
    return block_costs(isolated, units, bits, plain)


def uniform_widths(units: Iterable[str], spec: RunSpec) -> dict[str, int]:
    """The width of each of `units` in the uniform model of a run."""
    return {unit: FP16_BITS if unit in spec.keep_fp16 else spec.bits for unit in units}


def _kl_columns(known: str) -> list[str]:
    return [f"{known}kl{end}" for end in ENDS]


def block_costs(
    isolated: Sequence[Row],
    units: Sequence[Row],
    bits: Mapping[str, int],
    plain: Mapping[str, int],
) -> dict[int, Cost] | Missing:
    """Each block's KL, by its number.

    isolated: rows of blocks.parquet. units, bits: rows of units.parquet and a recipe's widths, and
    plain: the uniform model's; a block whose widths the recipe changes costs the sum of its units
    at these widths, exact where measured.
    """
    costs: dict[int, Cost] = {row["block"]: _ends(row, "kl") for row in isolated}
    at = {(row["unit"], row["bits"]): row for row in units}
    for block in changed_blocks(bits, plain):
        mine = [unit for unit in bits if block_of(unit) == block]
        # At 16 bits a unit is the reference's; runs of earlier versions have no row for it.
        wanted = [(unit, bits[unit]) for unit in mine if bits[unit] != FP16_BITS]
        absent = [unit for unit, width in wanted if (unit, width) not in at]
        if absent:
            return Missing(f"unit {absent[0]} was not measured at {bits[absent[0]]} bits")
        found = [_ends(at[key], _known(at[key])) for key in wanted]
        costs[block] = (
            sum(c[0] for c in found),
            sum(c[1] for c in found),
            sum(c[2] for c in found),
        )
    for block, cost in costs.items():
        # Counted as nothing, it would make the others' shares right and its own pass.
        if not all(math.isfinite(part) for part in cost):
            return Missing(f"the KL of block {block} is not a finite number")
    return dict(sorted(costs.items())) if costs else Missing("no block was measured")


def changed_blocks(bits: Mapping[str, int], plain: Mapping[str, int]) -> list[int]:
    """The blocks in which a recipe has other widths than `plain`."""
    return sorted({block_of(unit) for unit in bits if bits[unit] != plain[unit]})


def block_of(unit: str) -> int:
    """The block that a unit is in."""
    return int(unit.partition(".")[0])


def _ends(row: Row, column: str) -> Cost:
    value, low, high = (row[f"{column}{end}"] for end in ENDS)
    return value, low, high


def _known(row: Row) -> str:
    """Where a unit's KL is: exact where it was measured, else estimated."""
    return "estimated_kl" if row["exact_kl"] is None else "exact_kl"


def block_shares(costs: Mapping[int, Cost], windows: int, scored: int) -> tuple[Finding, ...]:
    """Each block's KL over the sum of all, on `windows` windows with `scored` tokens in each.

    The bounds are outer ones: a block's upper bound among the others' lower bounds, and the
    reverse. They cover at least as often as the blocks' own.
    """
    sums = [sum(max(0.0, cost[end]) for cost in costs.values()) for end in range(3)]
    found = []
    for block, cost in costs.items():
        value, low, high = (max(0.0, part) for part in cost)
        others = [total - mine for total, mine in zip(sums, (value, low, high), strict=True)]
        share, least, most = (
            mine / (mine + rest) if mine + rest > 0 else 0.0
            for mine, rest in ((value, others[0]), (low, others[2]), (high, others[1]))
        )
        if windows < LEAST_WINDOWS:
            least, most = -math.inf, math.inf
        tokens = windows * scored, LEAST_WINDOWS * scored
        found.append(Finding(share, least, most, *tokens, of=f"block {block}"))
    return tuple(found)
