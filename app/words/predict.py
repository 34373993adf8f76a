"""What is predicted of a recipe before anything is made of it: size, KL and perplexity.

Units' damage adds up nearly (the additivity ratio says how nearly), so a recipe's KL is predicted
as the uniform model's KL times the share of the units' summed KL that is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.scores import change_by_groups
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.scores import Scores
from awqscope.mixedprec.scheme import FP16_BITS, Grouped, UnitWidths, Width, sort_widths

Row = Mapping[str, Any]
# unit -> width -> its row, as units.parquet has it.
Units = Mapping[str, Mapping[Width, Row]]


@dataclass(frozen=True)
class Prediction:
    """bytes: of all weights on disk; kl: nats a token; recovered: share of the uniform KL."""

    bytes: int
    kl: float
    ppl: float
    recovered: float


def unit_kl(row: Row) -> float:
    """A unit's KL: exact where it was measured, else estimated."""
    return row["exact_kl"] if row["exact_kl"] is not None else row["estimated_kl"]


def unit_bounds(row: Row) -> tuple[float | None, float | None]:
    """The 95% bounds of a unit's KL."""
    known = "exact_kl" if row["exact_kl"] is not None else "estimated_kl"
    return row[f"{known}_low"], row[f"{known}_high"]


def quantized_units(rows: Sequence[Row], spec: RunSpec) -> list[Row]:
    """The rows at the low width of the units that the run quantized at all."""
    kept = set(spec.keep_fp16)
    return [row for row in rows if row["bits"] == spec.bits and row["unit"] not in kept]


def unit_table(rows: Sequence[Row], groups: Sequence[Row] = ()) -> dict[str, dict[Width, Row]]:
    """unit -> width -> its row of units.parquet; `groups`, rows of groups.parquet, are made like
    them: what the unit costs at these bits in the run's own groups, changed as the groups do."""
    found: dict[str, dict[Width, Row]] = {}
    for row in rows:
        found.setdefault(row["unit"], {})[row["bits"]] = row
    for row in groups:
        own = found.get(row["unit"], {}).get(row["bits"])
        if own is not None:
            factor = change_by_groups(row)
            low, high = (None if end is None else end * factor for end in unit_bounds(own))
            found[row["unit"]][Grouped(row["bits"], row["group_size"])] = {
                **row,
                "estimated_kl": unit_kl(own) * factor,
                "estimated_kl_low": low,
                "estimated_kl_high": high,
                **dict.fromkeys(("exact_kl", "exact_kl_low", "exact_kl_high")),
            }
    return found


def widths_of(units: Units) -> list[Width]:
    """The widths that every unit has a row at, as `rank_width` sorts them."""
    return sort_widths(set.intersection(*(set(widths) for widths in units.values())))


def predict(record: Record, units: Units, widths: UnitWidths) -> Prediction:
    """The prediction for a recipe's widths by unit (the others as in the uniform model)."""
    low, headline = record.spec.bits, record.measured
    kept = set(record.spec.keep_fp16)
    total = sum(unit_kl(units[unit][low]) for unit in units if unit not in kept)
    saved, extra = 0.0, 0
    for unit, width in widths.items():
        base = FP16_BITS if unit in kept else low
        # Runs of earlier versions have no rows at 16 bits: their kept units count as still kept.
        if width != base and base in units[unit]:
            before, after = units[unit][base], units[unit][width]
            saved += unit_kl(before) - unit_kl(after)
            extra += after["bytes"] - before["bytes"]
    left = max(0.0, 1 - saved / total) if total > 0 else 1.0
    ppl = headline.ppl
    return Prediction(
        bytes=headline.bytes.uniform + extra,
        kl=headline.kl.uniform * left,
        ppl=ppl.reference * (ppl.uniform / ppl.reference) ** left,
        recovered=1 - left,
    )


def read_changes(text: str, units: Units, allowed: Sequence[Width]) -> dict[str, Width]:
    """`3.qkv:8,5.o:4x32` as unit -> width; what the model does not have is left out."""
    found = {}
    known = {str(width): width for width in allowed}
    for part in text.split(","):
        unit, _, width = part.partition(":")
        if unit in units and width in known:
            found[unit] = known[width]
    return found


def write_changes(widths: UnitWidths, base: UnitWidths) -> str:
    """What differs from `base`, as `read_changes` takes it."""
    return ",".join(f"{unit}:{width}" for unit, width in widths.items() if width != base[unit])


def find_bits(scores: Scores | None, recipe: Recipe | None) -> float | None:
    """What a weight of a recipe's units takes, in bits, scales and zero points counted; None where
    its widths have no scores."""
    if scores is None or recipe is None:
        return None
    try:
        return 8 * scores.unit_bytes(recipe.widths) / scores.weights
    except (InputError, LookupError):
        return None
