"""What a hand-made recipe should come to, before anything is made: size, KL and perplexity.

Units' damage adds up nearly (the additivity ratio says how nearly), so a recipe's KL is predicted
as the uniform model's KL times the share of the units' summed KL that is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.figures import unit_kl
from mixedprec.recipe import Recipe, RecipeUnit
from mixedprec.scheme import FP16_BITS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Prediction:
    """bytes: of all weights on disk; kl: nats a token; recovered: share of the uniform KL."""

    bytes: int
    kl: float
    ppl: float
    recovered: float


def unit_table(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """unit -> width -> its row of units.parquet."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row["unit"], {})[row["bits"]] = row
    return found


def widths_of(units: Mapping[str, Mapping[int, Row]]) -> list[int]:
    """The widths that every unit has a row at, ascending."""
    return sorted(set.intersection(*(set(widths) for widths in units.values())))


def predict(
    record: Mapping[str, Any], units: Mapping[str, Mapping[int, Row]], bits: Mapping[str, int]
) -> Prediction:
    """The prediction for a recipe `bits` (unit -> width; the others as in the uniform model)."""
    low, headline = record["spec"]["bits"], record["headline"]
    kept = set(record["spec"]["keep_fp16"])

    def kl_at(unit: str, width: int) -> float:
        return 0.0 if width == FP16_BITS else unit_kl(units[unit][width])

    total = sum(kl_at(unit, low) for unit in units if unit not in kept)
    saved, extra = 0.0, 0
    for unit, width in bits.items():
        base = FP16_BITS if unit in kept else low
        if width != base:
            saved += kl_at(unit, base) - kl_at(unit, width)
            extra += units[unit][width]["bytes"] - units[unit][base]["bytes"]
    left = max(0.0, 1 - saved / total) if total > 0 else 1.0
    ppl = headline["ppl"]
    return Prediction(
        bytes=headline["bytes"]["uniform"] + extra,
        kl=headline["kl"]["uniform"] * left,
        ppl=ppl["reference"] * (ppl["uniform"] / ppl["reference"]) ** left,
        recovered=1 - left,
    )


def read_changes(
    text: str, units: Mapping[str, Mapping[int, Row]], allowed: Sequence[int]
) -> dict[str, int]:
    """`3.qkv:8,5.o:16` as unit -> width; what the model does not have is left out."""
    found = {}
    for part in filter(None, text.split(",")):
        unit, _, width = part.partition(":")
        if unit in units and width.isdigit() and int(width) in allowed:
            found[unit] = int(width)
    return found


def write_changes(bits: Mapping[str, int], base: Mapping[str, int]) -> str:
    """What differs from `base`, as `read_changes` takes it."""
    return ",".join(f"{unit}:{width}" for unit, width in bits.items() if width != base[unit])


def hand_made(recipe: Recipe, bits: Mapping[str, int]) -> Recipe:
    """The run's recipe with other widths: fused linears go together, as its units hold them."""
    units = tuple(
        RecipeUnit(entry.unit, entry.linears, bits.get(entry.unit, entry.bits))
        for entry in recipe.units
    )
    return Recipe(recipe.model, "by hand", units, {"from": recipe.kind, **recipe.provenance})
