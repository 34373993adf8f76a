"""What a report says of the damage: by block, by unit, and why a block is flagged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from awqscope.app.figures.blocks import draw_profile, draw_units
from awqscope.app.report.contents import Findings
from awqscope.app.report.pieces import Chart, Row, Table
from awqscope.app.words.compared.comparison import ABOUT_PLACES, NO_UNITS, label_models
from awqscope.app.words.noise import find_floor
from awqscope.app.words.numbers import show_token
from awqscope.app.words.run import (
    METRICS,
    PLACE_COLUMNS,
    WIDTH_COLUMNS,
    block_unit_columns,
    block_unit_rows,
    channel_summary,
    place_rows,
    profile_rows,
    profile_summary,
    promotion_columns,
    promotion_rows,
    unit_rows,
    units_summary,
    width_rows,
    worst_blocks,
    worst_units,
)
from awqscope.app.words.sites import order_kinds
from awqscope.diagnose.runs.record import UNIFORM, Comparison, Record
from awqscope.mixedprec.words import write_bounded, write_decibels, write_number

SPOILED = 6
OUTLIERS = 3
PROFILE_HEIGHT = 330


@dataclass(frozen=True)
class FlaggedBlock:
    """Why a block is flagged: facts by name, and its tables."""

    block: int
    reason: str
    facts: Mapping[str, str]
    tables: Sequence[Table]


def profile_charts(found: Findings) -> list[Chart]:
    """The profile of the damage in KL, then in ΔPPL."""
    floor = find_floor(found.record)
    charts = [_profile_chart(found.blocks, metric, floor) for metric in METRICS]
    return charts if found.blocks else []


def _profile_chart(rows: Sequence[Row], metric: str, floor: float | None) -> Chart:
    name = METRICS[metric]
    figure = draw_profile(rows, metric, "linear", floor)
    figure.update_layout(height=PROFILE_HEIGHT)
    return Chart(
        key=f"profile-{metric.replace('_', '-')}",
        title=f"{name} by block",
        figure=figure,
        summary=profile_summary(worst_blocks(rows, metric), metric, floor),
        table=Table(
            {
                "block": "Block",
                "value": f"{name} alone",
                "interval": "95%",
                "cumulative": "Up to here",
                "restored": "If restored",
                "verdict": "Verdict",
            },
            [row | {"block": str(row["block"])} for row in profile_rows(rows, metric, floor)],
            f"{name} by block",
        ),
    )


def units_chart(found: Findings) -> Chart | None:
    """The heat map of units; None where none is quantized, and of a comparison."""
    record = found.record
    if isinstance(record, Comparison):
        return None
    here = worst_units(found.units, record.spec)
    if not here:
        return None
    bits = record.spec.bits
    return Chart(
        key="units",
        title="KL by block and unit",
        figure=draw_units(here, order_kinds(record, [row["kind"] for row in here])),
        summary=units_summary(here, record) or "No unit is damaged at all.",
        table=Table(
            {"unit": "Unit", "kl": f"KL at {bits} bits", "known": "How known", "bytes": "Weights"},
            unit_rows(here),
            "KL by unit, the largest first",
        ),
    )


def found_widths(found: Findings) -> Table | None:
    """What a candidate's units are stored at; None of a run that chose widths itself."""
    if not isinstance(found.record, Comparison):
        return None
    return Table(WIDTH_COLUMNS, width_rows(found.units), "Widths that were found")


def places_table(found: Findings) -> Table | None:
    """What a candidate changes outside the blocks; None where it changes nothing there."""
    record = found.record
    if not isinstance(record, Comparison) or not record.places:
        return None
    return Table(
        PLACE_COLUMNS, place_rows(record.places), "Outside the blocks", summary=ABOUT_PLACES
    )


def about_units(found: Findings) -> str:
    """Which units the run was told to leave alone, or why a comparison says little of them, in a
    sentence; empty if there is nothing to say."""
    if isinstance(found.record, Comparison):
        return NO_UNITS
    kept = found.record.spec.keep_fp16
    return f"Kept at 16 bits, as asked: {', '.join(kept)}." if kept else ""


def flagged_blocks(found: Findings) -> list[FlaggedBlock]:
    """Every flagged block: why, its units, its channels, the tokens it spoils."""
    return [_flagged_block(found, block) for block in found.record.measured.flagged]


def why_none(found: Findings) -> str:
    """Why no block is flagged, by the block that came nearest."""
    isolated = worst_blocks(found.blocks, "kl")
    if not isolated:
        return "No block is flagged."
    worst = isolated[0]
    return f"No block is flagged. The nearest is block {worst['block']}: {worst['reason']}."


def _flagged_block(found: Findings, block: int) -> FlaggedBlock:
    views = {row["view"]: row for row in found.blocks if row["block"] == block}
    alone, record = views["isolated"], found.record
    bounds = {name: (alone[f"{name}_low"], alone[f"{name}_high"]) for name in ("kl", "delta_ppl")}
    facts = {
        "KL alone": write_bounded(alone["kl"], bounds["kl"]),
        "ΔPPL alone": write_bounded(alone["delta_ppl"], bounds["delta_ppl"], "+.3f"),
        "KL if restored": f"{write_number(views['restored']['kl'])}, all others quantized",
        "z among the blocks": f"{write_number(alone['z'], '.1f')}, of log KL, robust",
    }
    activations = [row for row in found.activations if row["block"] == block]
    for row in activations:
        if row["site"] == "output" and row["model"] == "uniform" and row["sqnr"] is not None:
            cosine = write_number(row["cosine"], ".5f")
            facts["Output SQNR"] = f"{write_decibels(row['sqnr'])}, cosine {cosine}"
    mine = [row for row in found.units if row["block"] == block]
    if isinstance(record, Record):
        tables = _unit_tables(found, record, mine, block)
    else:
        tables = [Table(WIDTH_COLUMNS, width_rows(mine), f"Units of block {block}")]
    order = order_kinds(record, [row["site"] for row in activations])
    reference = sorted(
        (row for row in activations if row["model"] == "reference"),
        key=lambda row: order.index(row["site"]),
    )
    if reference:
        tables.append(_channel_table(reference, block, label_models(record)[UNIFORM]))
    spoiled = found.spoiled.get(block, [])[:SPOILED]
    if spoiled:
        tables.append(_spoiled_table(spoiled, block))
    return FlaggedBlock(block, alone["reason"], facts, tables)


def _unit_tables(found: Findings, record: Record, rows: Sequence[Row], block: int) -> list[Table]:
    """A block's units at both widths, and the sets of them tried at the rescue width. rows: of
    units.parquet, the block's."""
    tables, rescue = [], record.spec.rescue_bits
    if units := block_unit_rows(rows, record.spec):
        columns = block_unit_columns(record.spec.bits, rescue)
        tables.append(Table(columns, units, f"Units of block {block}, worst first"))
    tried = [row for row in found.promotions if row["block"] == block]
    if tried:
        tables.append(
            Table(
                promotion_columns(rescue),
                promotion_rows(tried),
                f"Promotions of block {block} tried in the quantized model, best first",
            )
        )
    return tables


def _reach(row: Row) -> float:
    """How far the largest channel of a site is above its median channel."""
    return row["outlier_values"][0] / max(row["channel_median"], 1e-12)


def _name_site(site: str) -> str:
    return "Its output" if site == "output" else f"Into {site}"


def _channel_table(rows: Sequence[Row], block: int, quantized: str) -> Table:
    """The outlier channels of every site of a block. rows: of activations.parquet, reference.
    quantized: what the model is called whose error is shown."""
    widest = max(rows, key=_reach)
    return Table(
        {
            "site": "Activations",
            "channels": "Outlier channels (largest |x|)",
            "median": "Median channel",
            "times": "Largest over it",
            "kurtosis": "Kurtosis",
            "sqnr": f"SQNR, {quantized}",
        },
        [
            {
                "site": _name_site(row["site"]).lower(),
                "channels": ", ".join(
                    f"{channel} ({write_number(value, '.3g')})"
                    for channel, value in list(
                        zip(row["outlier_channels"], row["outlier_values"], strict=True)
                    )[:OUTLIERS]
                ),
                "median": write_number(row["channel_median"], ".3g"),
                "times": f"{_reach(row):.1f}×",
                "kurtosis": write_number(row["kurtosis"], ".1f"),
                "sqnr": write_decibels(row["sqnr"]),
            }
            for row in rows
        ],
        f"Outlier channels of block {block} in the 16-bit model",
        summary=f"{_name_site(widest['site'])}: {channel_summary(widest)}",
    )


def _spoiled_table(rows: Sequence[Row], block: int) -> Table:
    return Table(
        {"text": "Token", "alone": "KL, this block alone", "kl": "KL, all", "where": "Where"},
        [
            {
                "text": show_token(row["text"]),
                "alone": write_number(row["block_kl"], ".4f"),
                "kl": write_number(row["kl"], ".4f"),
                "where": f"window {row['window']}, token {row['position']}",
            }
            for row in rows
        ],
        f"Tokens that block {block} alone moves most, of the worst windows",
        code=("text",),
    )
