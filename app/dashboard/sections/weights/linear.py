"""One linear's weights on a page: scales, clips, codes, and the groups that are rounded worst."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dash import html
from pydantic import ValidationError

from awqscope.app.dashboard.parts import as_table, card, chart, go_to, table, tile, tiles
from awqscope.app.dashboard.urls import link
from awqscope.app.figures.studies.weights import (
    draw_channel_sizes,
    draw_clipping,
    draw_codes,
    draw_group,
)
from awqscope.app.words.studies.weights import (
    CHANNEL_COLUMNS,
    GROUP_COLUMNS,
    PART_COLUMNS,
    VALUE_COLUMNS,
    channel_row,
    group_row,
    largest_channels,
    name_group,
    name_owner,
    name_step,
    part_rows,
    value_rows,
    write_channels,
    write_clipping,
    write_codes,
    write_fit,
    write_group,
    write_stored,
    write_worst,
)
from awqscope.diagnose.studies.causes.answer import Causes
from awqscope.diagnose.studies.weights.answer import BlockWeights, GroupValues, LinearWeights
from awqscope.mixedprec.words import (
    write_count,
    write_decibels,
    write_number,
    write_share,
    write_size,
    write_span,
)

LINEAR_COLUMNS = {
    "linear": "Linear",
    "unit": "Unit",
    "bits": "Bits",
    "size": "Size",
    "each": "Bits a weight",
    "sqnr": "SQNR",
    "error": "‖ΔW‖ / ‖W‖",
    "clipped": "Groups cut",
    "saturated": "Saturated",
}
# Codes of more than so many are told by eight at a time in a table.
MOST_CODES = 16
DAMAGE = "Of the output's error"


@dataclass(frozen=True)
class OutputDamage:
    """What a study of causes has measured of a linear: the shares of its output's error that input
    channels and heads hold, by number; by role and number. Empty where nobody has asked."""

    channels: Mapping[int, float] = field(default_factory=dict)
    heads: Mapping[tuple[str, int], float] = field(default_factory=dict)

    def of_heads(self, group: GroupValues) -> float | None:
        """The share of the heads that a group is of."""
        known = [self.heads.get((group.role or "", head)) for head in group.heads]
        found = [share for share in known if share is not None]
        return sum(found) if found else None


def read_damage(kept: Mapping[str, Any] | None, linear: str) -> OutputDamage:
    """What a run's answer to why a block is hurt says of one of its linears."""
    try:
        causes = None if kept is None else Causes.model_validate(kept["answer"])
    except ValidationError:
        causes = None
    found = [one for one in (causes.linears if causes else ()) if one.linear == linear]
    return OutputDamage(
        {each.channel: each.error for one in found for each in one.channels},
        {(each.role, each.head): each.error for one in found for each in one.heads},
    )


def linears_table(answer: BlockWeights, run: str, chosen: str) -> Any:
    """Every linear of the block, each the way to its own weights."""
    return table(
        LINEAR_COLUMNS,
        [
            {
                "class": "chosen" if linear.linear == chosen else "",
                "linear": go_to(
                    linear.linear, link("weights", run, answer.block, linear=linear.linear)
                ),
                "unit": linear.unit,
                "bits": str(linear.bits),
                "size": write_size(linear.bytes),
                "each": write_number(linear.bits_per_weight, ".3f"),
                "sqnr": write_decibels(linear.sqnr),
                "error": write_share(linear.relative_error, ".2%"),
                "clipped": write_share(
                    None
                    if linear.clipping is None
                    else linear.clipping.clipped / linear.clipping.groups
                ),
                "saturated": write_share(linear.saturated),
            }
            for linear in answer.linears
        ],
        "The block's linears, in order of computation",
    )


def linear_cards(
    answer: BlockWeights,
    linear: LinearWeights,
    group: GroupValues | None,
    run: str,
    damage: OutputDamage,
) -> list[Any]:
    """All that is told of a linear. group: the one of its groups that is shown. damage: what the
    study of the block's causes has measured of its output."""
    parts = [stored_card(linear)]
    if linear.linear in answer.brief:
        said = "Of a block with so many linears, only those with the largest error are looked at "
        return [*parts, html.P(f"{said} by channel and by group; this is none of them.")]
    counted = [codes_card(linear), clipping_card(linear)]
    parts += [channels_card(linear, damage), html.Div(counted, className="columns")]
    if group is not None:
        parts.append(groups_card(answer, linear, group, run, damage))
    return parts


def stored_card(linear: LinearWeights) -> Any:
    """What a linear is stored in, and how near that comes to its 16 bits."""
    low, high = (write_number(end, ".3g") for end in linear.range)
    return card(
        "What is stored",
        tiles(
            tile("Size", write_size(linear.bytes), f"{linear.rows:,} × {linear.columns:,}"),
            tile(
                "Bits a weight",
                write_number(linear.bits_per_weight, ".3f"),
                "scales and zero points counted",
            ),
            tile(
                "SQNR",
                write_decibels(linear.sqnr),
                f"‖ΔW‖ / ‖W‖ {write_share(linear.relative_error, '.2%')}",
            ),
            tile("16-bit range", f"{low} to {high}", f"root mean square {linear.rms:.3g}"),
        ),
        table(PART_COLUMNS, part_rows(linear), "The tensors on disk"),
        summary=f"{write_stored(linear)} {write_fit(linear)}",
    )


def channels_card(linear: LinearWeights, damage: OutputDamage) -> Any:
    """AWQ's scale of every input channel beside its activations and its weights."""
    columns, rows = dict(CHANNEL_COLUMNS), []
    if damage.channels:
        columns["damage"] = DAMAGE
    for channel in largest_channels(linear):
        share = damage.channels.get(channel.channel)
        rows.append(channel_row(channel) | {"damage": write_share(share, ".2%")})
    return card(
        "Scales",
        chart(
            draw_channel_sizes(linear.channels, linear.columns),
            "Scale, activation and weight by input channel, see the table",
        ),
        as_table(columns, rows),
        summary=write_channels(linear),
    )


def clipping_card(linear: LinearWeights) -> Any:
    """How much of each group's range is cut."""
    clipping = linear.clipping
    if clipping is None or not clipping.clipped:
        return card("Clips", summary=write_clipping(linear))
    return card(
        "Clips",
        chart(draw_clipping(clipping), "Groups by the share of their range that is cut"),
        as_table(
            {"cut": "Of its range is cut", "groups": "Groups", "share": "Share"},
            [
                {
                    "cut": name_step(step),
                    "groups": write_count(count),
                    "share": write_share(count / clipping.groups),
                }
                for step, count in enumerate(clipping.steps)
            ],
        ),
        summary=write_clipping(linear),
    )


def codes_card(linear: LinearWeights) -> Any:
    """How often each code and each zero point is used."""
    if not linear.codes:
        return card("Codes", summary="It is kept at 16 bits and has no codes.")
    some = -(-len(linear.codes) // MOST_CODES)
    starts = range(0, len(linear.codes), some)
    return card(
        "Codes",
        chart(draw_codes(linear.codes, linear.zeros), "How often each code is used, see the table"),
        as_table(
            {"code": "Code", "weights": "Weights", "zeros": "Zero points of groups"},
            [
                {
                    "code": str(start) if some == 1 else write_span(start, start + some - 1),
                    "weights": write_count(sum(linear.codes[start : start + some])),
                    "zeros": write_count(sum(linear.zeros[start : start + some])),
                }
                for start in starts
            ],
        ),
        summary=write_codes(linear),
    )


def groups_card(
    answer: BlockWeights,
    linear: LinearWeights,
    shown: GroupValues,
    run: str,
    damage: OutputDamage,
) -> Any:
    """The groups that are worth a look, and the values of one of them."""

    def way(group: GroupValues) -> str:
        place = name_group(group)
        return link("weights", run, answer.block, linear=linear.linear, group=place)

    rows = [
        group_row(group, answer)
        | {
            "row": go_to(name_group(group), way(group)),
            "damage": write_share(damage.of_heads(group)),
            "class": "chosen" if group == shown else "",
        }
        for group in linear.groups
    ]
    columns = {key: text for key, text in GROUP_COLUMNS.items() if key != "group"}
    columns["row"] = "Row:group"
    if not any(group.heads for group in linear.groups):
        del columns["head"]
    if damage.heads:
        columns["damage"] = f"{DAMAGE}, of its heads"
    return card(
        "Worst weight groups",
        table(columns, rows, "Largest error first, then by output and by cut", per_page=12),
        html.Div(
            [
                html.H3(_title(shown, answer)),
                _turns(linear.groups, shown, way),
                html.P(write_group(shown)),
                chart(draw_group(shown), "A group's weights, 16-bit beside stored, see the table"),
                as_table(VALUE_COLUMNS, value_rows(shown)),
            ],
            id="weight-group",
        ),
        summary=write_worst(linear, answer),
    )


def _title(group: GroupValues, answer: BlockWeights) -> str:
    whose = name_owner(group, answer)
    return f"Row {group.row}, group {group.group}{f': {whose}' if whose else ''}"


def _turns(
    groups: Sequence[GroupValues], shown: GroupValues, way: Callable[[GroupValues], str]
) -> Any:
    """The ways to the groups before and after the one that is shown."""
    at = list(groups).index(shown)
    ways = [
        go_to(text, way(groups[number]))
        for number, text in ((at - 1, "← Group before"), (at + 1, "Group after →"))
        if 0 <= number < len(groups)
    ]
    return html.Nav(ways, className="around", **{"aria-label": "Other weight groups"})
