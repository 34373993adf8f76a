"""What a run itself holds of a linear's weights, shown while nobody has looked at them: the scales
and clips of its search, and the groups that its sweep found to be rounded worst."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dash import html

from awqscope.app.dashboard.parts import as_table, card, chart, table
from awqscope.app.figures.studies.weights import draw_channel_sizes, draw_limits
from awqscope.app.store import Store
from awqscope.app.words.studies.weights import CHANNEL_COLUMNS, channel_row, sort_channels
from awqscope.diagnose.studies.weights.answer import ChannelSize
from awqscope.diagnose.studies.weights.searched import SearchedLinear
from awqscope.mixedprec.words import write_number, write_share

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)

Row = Mapping[str, Any]


def scales_card(sizes: Sequence[ChannelSize], ratio: float | None, bits: int) -> Any:
    """AWQ's scales beside the activations of their channels."""
    most, *_, least = sort_channels(sizes)
    return card(
        "Scales",
        chart(
            draw_channel_sizes(sizes, len(sizes)),
            "Scale and activation by input channel, see the table",
        ),
        as_table(CHANNEL_COLUMNS, [channel_row(channel) for channel in sort_channels(sizes)[:12]]),
        summary=f"At {bits} bits AWQ multiplies input channel {most.channel} by most, "
        f"{write_number(most.scale, '.3g')}, and channel {least.channel} by least, "
        f"{write_number(least.scale, '.3g')}; the ratio is {write_number(ratio, '.3g')}.",
    )


def limits_card(limits: np.ndarray, bits: int) -> Any:
    """The largest weights that clipping keeps. limits: [N, G]."""
    found = np.quantile(limits, QUANTILES)
    return card(
        "Clips",
        chart(draw_limits(limits), "Groups by the largest weight that is kept, see the table"),
        as_table(
            {"share": "Of the groups", "limit": "keep at most"},
            [
                {"share": write_share(share, ".0%"), "limit": write_number(float(limit), ".3g")}
                for share, limit in zip(QUANTILES, found, strict=True)
            ],
        ),
        summary=f"The largest scaled weight that each of {limits.size:,} groups keeps at {bits} "
        "bits. How much of its range that cuts, only the model's weights tell.",
    )


def worst_card(row: Row) -> Any:
    """The groups that are rounded worst. row: the linear's, of weights.parquet."""
    groups = zip(row["worst_rows"], row["worst_groups"], row["worst_errors"], strict=True)
    return card(
        "Worst weight groups",
        table(
            {"row": "Row", "group": "Group", "error": "Error"},
            [
                {"row": str(number), "group": str(group), "error": write_share(error)}
                for number, group, error in groups
            ],
        ),
        summary=f"At {row['bits']} bits ‖ΔW‖ is {write_share(row['relative_error'], '.2%')} of "
        "‖W‖. Whose heads these rows are, and their values, only the model's weights tell.",
    )


def kept_cards(
    store: Store,
    run: str,
    row: Row,
    searched: SearchedLinear | None,
    bits: int,
) -> list[Any]:
    """What the run holds of one linear. row: its of weights.parquet; searched: what its search at
    `bits` chose, None where the run holds none of it."""
    block, kind = row["block"], row["unit"].partition(".")[2]
    parts: list[Any] = []
    if searched is None:
        said = "The run does not hold its AWQ searches: scales, clips and codes cannot be shown."
        parts.append(html.P(said, className="note"))
    else:
        if searched.scales is not None:
            largest = store.array(run, f"channel_max.{block}.{kind}.reference")
            parts.append(scales_card(searched.list_sizes(largest), searched.ratio, bits))
        else:
            parts.append(card("Scales", summary="AWQ does not scale its inputs."))
        if searched.limits is not None:
            parts.append(limits_card(searched.limits, bits))
    return [*parts, worst_card(row)]
