"""What a run says, before it is laid out: numbers with their labels, sentences, points.

Plain data out of plain data, so that the dashboard's pages and the report say the same.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.compared.comparison import name_briefly
from awqscope.app.words.noise import NOISE, list_noise, write_noise
from awqscope.app.words.numbers import Tile
from awqscope.app.words.predict import quantized_units, unit_bounds, unit_kl, unit_table
from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.entries.part import Bounded, Interval
from awqscope.diagnose.entries.source import Place
from awqscope.diagnose.runs.record import AnyRecord, Comparison, Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.words import (
    NOTHING,
    write_bounded,
    write_interval,
    write_number,
    write_share,
    write_size,
)

WIDTH_COLUMNS = {"unit": "Unit", "bits": "Bits", "bytes": "Weights"}
PLACE_COLUMNS = {
    "place": "Place",
    "kl": "KL alone",
    "ppl": "ΔPPL alone",
    "restored": "KL if restored",
}
METRICS = {"kl": "KL", "delta_ppl": "ΔPPL"}
SHADES = 8
SMALLEST_KL = 1e-6
# Shares of a token's KL that a repair gives back: below, it does little; above, it restores it.
LITTLE, MOST = 0.2, 0.8

Row = Mapping[str, Any]


def promoted_units(recipe: Recipe | None, record: AnyRecord) -> list[str]:
    """Units that the run's recipe gives its rescue width."""
    if recipe is None or isinstance(record, Comparison):
        return []
    rescue = record.spec.rescue_bits
    return [entry.unit for entry in recipe.units if entry.bits == rescue]


def headline_tiles(record: AnyRecord, bits: float | None = None) -> list[Tile]:
    """The numbers a release is decided on. bits: what a weight of the recipe's units takes, where
    that is known. InputError while nothing is measured."""
    headline, low = record.measured, name_briefly(record)
    ppl, kl, size = headline.ppl, headline.kl, headline.bytes
    top, delta = headline.top1_agreement, headline.delta_ppl
    parts = [
        Tile("Perplexity, 16-bit", write_number(ppl.reference, ".3f")),
        Tile(
            f"Perplexity, {low}",
            write_number(ppl.quantized, ".3f"),
            _write_delta_ppl(delta.quantized),
        ),
    ]
    if isinstance(headline, Headline) and headline.ppl.mixed is not None:
        note = _write_delta_ppl(headline.delta_ppl.mixed)
        parts.append(Tile("Perplexity, mixed", write_number(headline.ppl.mixed, ".3f"), note))
    note = _write_kl_interval(headline.kl_interval.quantized)
    parts.append(Tile(f"KL, {low}", write_number(kl.quantized, ".4f"), note))
    if isinstance(headline, Headline) and headline.ppl.mixed is not None:
        note = _write_kl_interval(headline.kl_interval.mixed)
        parts.append(Tile("KL, mixed", write_number(headline.kl.mixed, ".4f"), note))
        both = f"{write_share(top.quantized)} → {write_share(headline.top1_agreement.mixed)}"
        parts.append(Tile("Same top token", both, f"{low} → mixed"))
        more = (headline.bytes.mixed or 0) / headline.bytes.uniform - 1
        note = f"{write_number(more, '+.1%')} on {low}, 16-bit {write_size(size.reference)}"
        note += "" if bits is None else f"; units at {write_number(bits, '.2f')} bits a weight"
        parts.append(Tile("All weights, mixed", write_size(headline.bytes.mixed), note))
    else:
        parts.append(Tile("Same top token", write_share(top.quantized), low))
        note = f"16-bit {write_size(size.reference)}"
        parts.append(Tile(f"All weights, {low}", write_size(size.quantized), note))
    if isinstance(headline, Headline) and headline.recovered is not None:
        bounds = write_interval(headline.recovered_interval, ".1%")
        of = f"of the KL lost at {low} {bounds}"
        parts.append(Tile("Recovered", write_share(headline.recovered), of, "good"))
    if headline.additivity is not None:
        parts.append(
            Tile(
                "Additivity",
                write_number(headline.additivity, ".2f"),
                "the blocks' KL, summed, of the whole's",
            )
        )
    return parts


def _write_delta_ppl(delta: Bounded | None) -> str:
    if delta is None:
        return ""
    return f"Δ {write_number(delta[0], '+.3f')} {write_interval(delta[1:], '+.3f')}"


def _write_kl_interval(bounds: Interval | None) -> str:
    return f"nats a token {write_interval(bounds, '.4f')}"


def worst_blocks(rows: Sequence[Row], metric: str) -> list[Row]:
    """Each block alone, the largest damage first; of equal ones the earlier. rows: of
    blocks.parquet."""
    isolated = [row for row in rows if row["view"] == "isolated"]
    return sorted(isolated, key=lambda row: -as_cost(row[metric]))


def profile_summary(isolated: Sequence[Row], metric: str, floor: float | None = None) -> str:
    """The profile in words. isolated: rows, worst first. floor: the KL below which damage is
    noise, where that was measured."""
    worst = isolated[0]
    flagged = [str(row["block"]) for row in isolated if row["flagged"]]
    said = (
        f"Alone, block {worst['block']} costs most: {METRICS[metric]} "
        f"{write_number(worst[metric])} "
        f"{write_interval((worst[f'{metric}_low'], worst[f'{metric}_high']))}."
    )
    if len(isolated) > 1:
        median = statistics.median(row[metric] for row in isolated[1:])
        said += f" The other blocks' median is {write_number(median)}."
    noise = write_noise(isolated, floor)
    said += f" {noise}" if noise else ""
    return said + (f" Flagged: {', '.join(sorted(flagged, key=int))}." if flagged else "")


def profile_rows(
    rows: Sequence[Row], metric: str, floor: float | None = None
) -> list[dict[str, Any]]:
    """The profile as lines of a table; `block` is its number. floor: the KL below which damage is
    noise, where that was measured."""
    noise = list_noise(rows, floor)
    views = {(row["block"], row["view"]): row for row in rows}
    form = ".5f" if metric == "kl" else "+.4f"
    return [
        {
            "block": row["block"],
            "verdict": f"▲ flagged: {row['reason']}"
            if row["flagged"]
            else NOISE * (row["block"] in noise),
            "value": write_number(row[metric], form),
            "interval": write_interval((row[f"{metric}_low"], row[f"{metric}_high"]), form),
            "cumulative": write_number(views[row["block"], "cumulative"][metric], form),
            "restored": write_number(views[row["block"], "restored"][metric], form),
            "class": "flagged" if row["flagged"] else "",
        }
        for row in rows
        if row["view"] == "isolated"
    ]


def worst_units(rows: Sequence[Row], spec: RunSpec) -> list[Row]:
    """The quantized units at the low width, the largest KL first. rows: of units.parquet."""
    return sorted(quantized_units(rows, spec), key=lambda row: -as_cost(unit_kl(row)))


def units_summary(here: Sequence[Row], record: Record) -> str | None:
    """The units in words; None where none is damaged. here: as `worst_units` gives them."""
    total = sum(unit_kl(row) for row in here)
    if total <= 0:
        return None
    first = here[: min(3, len(here))]
    said = (
        f"Of {len(here)} units at {record.spec.bits} bits, "
        f"{', '.join(row['unit'] for row in first)} cost most: "
        f"{sum(unit_kl(row) for row in first) / total:.0%} of the units' KL, summed."
    )
    estimator = record.estimator
    if estimator is not None and estimator.spearman is not None:
        said += (
            f" Estimates agree with {estimator.verified_units} exact ones at Spearman "
            f"{estimator.spearman:.2f}."
        )
    return said


def unit_rows(here: Sequence[Row]) -> list[dict[str, Any]]:
    """The units as lines of a table. here: rows of units.parquet at one width."""
    return [
        {
            "unit": row["unit"],
            "kl": write_number(unit_kl(row)),
            "known": "measured" if row["exact_kl"] is not None else "estimated",
            "bytes": write_size(row["bytes"]),
        }
        for row in here
    ]


def block_unit_columns(low: int, rescue: int) -> dict[str, str]:
    """The headings of `block_unit_rows`."""
    return {
        "unit": "Unit",
        "low": f"KL at {low} bits",
        "interval": "95%",
        "known": "How known",
        "rescue": f"KL at {rescue} bits",
        "bytes": "Weights",
        "more": f"More at {rescue}",
    }


def block_unit_rows(rows: Sequence[Row], spec: RunSpec) -> list[dict[str, Any]]:
    """A block's quantized units at both widths as lines of a table, worst first.

    rows: of units.parquet, the block's.
    """
    by_unit, lines = unit_table(rows), []
    for at_low in worst_units(rows, spec):
        at_rescue = by_unit[at_low["unit"]].get(spec.rescue_bits)
        lines.append(
            {
                "unit": at_low["unit"],
                "low": write_number(unit_kl(at_low)),
                "interval": write_interval(unit_bounds(at_low)),
                "known": "measured" if at_low["exact_kl"] is not None else "estimated",
                "rescue": write_number(unit_kl(at_rescue)) if at_rescue else NOTHING,
                "bytes": write_size(at_low["bytes"]),
                "more": write_size(at_rescue["bytes"] - at_low["bytes"]) if at_rescue else NOTHING,
            }
        )
    return lines


def width_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The units of a candidate at the widths they were found at. rows: of units.parquet."""
    return [
        {"unit": row["unit"], "bits": str(row["bits"]), "bytes": write_size(row["bytes"])}
        for row in rows
    ]


def place_rows(places: Sequence[Place]) -> list[dict[str, Any]]:
    """What a candidate changes outside the blocks."""
    return [
        {
            "place": each.place,
            "kl": write_bounded(each.kl, (each.kl_low, each.kl_high)),
            "ppl": write_bounded(each.delta_ppl, (each.delta_ppl_low, each.delta_ppl_high), "+.3f"),
            "restored": write_number(each.restored_kl),
        }
        for each in places
    ]


def promotion_columns(rescue: int) -> dict[str, str]:
    """The headings of `promotion_rows`."""
    return {
        "units": f"At {rescue} bits",
        "kl": "KL of the model",
        "back": "Given back",
        "bytes": "Costs",
        "chosen": "Choice",
    }


def promotion_rows(promotions: Sequence[Row]) -> list[dict[str, Any]]:
    """Sets of units tried at the rescue width as lines of a table, best first."""
    return [
        {
            "units": ", ".join(row["units"]),
            "kl": write_number(row["kl"]),
            "back": write_share(row["given_back"]),
            "bytes": write_size(row["extra_bytes"], signed=True),
            "chosen": "✓ chosen" if row["chosen"] else "",
            "class": "chosen" if row["chosen"] else "",
        }
        for row in sorted(promotions, key=lambda row: as_cost(row["kl"]))
    ]


def channel_summary(reference: Row) -> str:
    """The outlier channels in words."""
    channel, value = reference["outlier_channels"][0], reference["outlier_values"][0]
    times = value / max(reference["channel_median"], 1e-12)
    said = f"Channel {channel} reaches {write_number(value)}, {times:.1f} times the median channel."
    return said + (" No channel stands out." if times < 6 else "")


def token_value(row: Row, colour: str, model: str = "uniform") -> float | None:
    """What a token is coloured by; None for a window's first, which is context only, and where the
    model was not measured."""
    if row[f"kl_{model}"] is None:
        return None
    if colour == "kl":
        return row[f"kl_{model}"]
    return row[f"nll_{model}"] - row["nll_reference"]


def shade(value: float | None, largest: float) -> str:
    """The class of a token: `s0` to `s8`, by the square root of its share of the largest; `b…` for
    a token that the quantized model predicts better."""
    if value is None or largest <= 0:
        return "s0"
    step = min(SHADES, round(SHADES * (abs(value) / largest) ** 0.5))
    return f"s{step}" if value >= 0 else f"b{step}"


def token_summary(row: Row) -> str:
    """Which block is to blame, in words, where it is known."""
    restored, alone = row.get("restored_kl"), row.get("block_kl")
    if restored:
        best = min(range(len(restored)), key=lambda block: as_cost(restored[block]))
        left = 1 - restored[best] / row["kl_uniform"] if row["kl_uniform"] > 0 else 0.0
        if row["kl_uniform"] < SMALLEST_KL:
            return "Quantization does not move this token."
        if left < LITTLE:
            return "No single block's repair restores this token: the damage adds up."
        does = "restores it" if left >= MOST else "gives back the most of it"
        return (
            f"Repairing block {best} alone {does}: KL {write_number(row['kl_uniform'])} → "
            f"{write_number(restored[best])} ({left:.1%} given back)."
        )
    if alone:
        worst = max(range(len(alone)), key=lambda block: as_cost(alone[block]))
        if alone[worst] <= 0:
            return "No block alone moves this token."
        return f"Block {worst} alone moves it most: KL {write_number(alone[worst])}."
    return (
        "Blame by block is kept for the eight worst windows of those that blocks were measured "
        "on; this is not one of them."
    )


def measured_points(record: Record, promotions: Sequence[Row]) -> list[dict[str, Any]]:
    """What was measured or swept: uniform, the recipe's checkpoint, every promotion tried."""
    headline, low = record.measured, record.spec.bits
    size, kl = headline.bytes, headline.kl
    points = [
        {
            "name": ", ".join(row["units"]),
            "bytes": size.uniform + row["extra_bytes"],
            "kl": row["kl"],
            "kind": "predicted",
        }
        for row in promotions
    ]
    points.append(
        {
            "name": f"uniform {low}-bit",
            "bytes": size.uniform,
            "kl": kl.uniform,
            "kind": "measured",
        }
    )
    if kl.mixed is not None:
        points.append({"name": "recipe", "bytes": size.mixed, "kl": kl.mixed, "kind": "measured"})
    return points


def point_rows(points: Sequence[Row]) -> list[dict[str, Any]]:
    """Recipes as lines of a table, the smallest first."""
    return [
        {
            "name": point["name"],
            "bytes": write_size(point["bytes"]),
            "kl": write_number(point["kl"]),
            "kind": point["kind"],
        }
        for point in sorted(points, key=lambda point: point["bytes"])
    ]
