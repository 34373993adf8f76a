"""What a look at weights says, in words: the same on the terminal and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.studies.why import ROLE_NAMES, write_percent
from awqscope.diagnose.studies.weights.answer import (
    CUT_STEP,
    BlockWeights,
    ChannelSize,
    GroupValues,
    LinearWeights,
)
from awqscope.mixedprec.words import (
    NOTHING,
    Written,
    write_decibels,
    write_number,
    write_ranges,
    write_share,
    write_size,
    write_span,
)

FROM = {
    "checkpoint": "The codes are those of the run's checkpoint on disk.",
    "searches": "The codes are rebuilt from the run's searches and its model, as its checkpoint "
    "has them.",
}
GROUP_COLUMNS = {
    "row": "Row",
    "group": "Group",
    "head": "Head",
    "channels": "Input channels",
    "error": "Error",
    "reach": "Moves its output by up to",
    "cut": "Range cut",
    "scale": "Scale",
    "zero": "Zero point",
}
CHANNEL_COLUMNS = {
    "channel": "Channel",
    "scale": "AWQ's scale",
    "activation": "Largest |x|",
    "weight": "Mean |w|",
}
PART_COLUMNS = {"name": "Tensor", "dtype": "Type", "shape": "Shape", "bytes": "Size"}
# Groups that a table names of each linear, and what is saved of each.
NAMED_GROUPS = 3
WORST_APART = {
    "groups": {
        f"{key} {at}": f"Worst group {at}: {key}"
        for at in range(1, NAMED_GROUPS + 1)
        for key in ("row", "group", "error")
    }
}
# Channels that a table names.
NAMED_CHANNELS = 12
BARS = "▁▂▃▄▅▆▇█"


def write_source(answer: BlockWeights) -> str:
    """Where the codes are from, and of which recipe."""
    return f"{FROM[answer.made_of]} Its recipe is of the kind “{answer.recipe}”."


def write_stored(linear: LinearWeights) -> str:
    """How a linear is stored."""
    size = (
        f"{write_size(linear.bytes)}, {write_number(linear.bits_per_weight, '.3f')} bits a weight"
    )
    shape = f"{linear.rows:,} × {linear.columns:,} weights"
    if linear.bits == 16:
        return f"{shape} at 16 bits: {size}."
    groups = "a group a row" if linear.group == linear.columns else f"groups of {linear.group}"
    zeros = "no zero points" if linear.symmetric else "zero points"
    return f"{shape} at {linear.bits} bits in {groups}, with 16-bit scales and {zeros}: {size}."


def write_fit(linear: LinearWeights) -> str:
    """The range of the 16-bit weights, and how near what is stored comes."""
    low, high = (write_number(end, ".4g") for end in linear.range)
    ranged = f"In 16 bits they reach from {low} to {high}, root mean square {linear.rms:.4g}."
    if linear.relative_error is None:
        return ranged
    if linear.sqnr is None:
        return f"{ranged} What is stored is just that."
    error = write_share(linear.relative_error, ".2%")
    return f"{ranged} ‖ΔW‖ is {error} of ‖W‖: SQNR {write_decibels(linear.sqnr)}."


def write_channels(linear: LinearWeights) -> str:
    """Which channels AWQ's scales stretch most and least."""
    scaled = [channel for channel in linear.channels if channel.scale is not None]
    if not scaled:
        return "AWQ does not scale its inputs."
    ordered = sort_channels(scaled)
    most, least = ordered[0], ordered[-1]
    reach = (
        ""
        if most.activation is None
        else f", whose activations reach {write_number(most.activation, '.3g')}"
    )
    ratio = "" if linear.ratio is None else f" The ratio is {linear.ratio:.3g}."
    return (
        f"AWQ multiplies input channel {most.channel} by most, {write_number(most.scale, '.3g')}"
        f"{reach}, and channel {least.channel} by least, {write_number(least.scale, '.3g')}.{ratio}"
    )


def write_clipping(linear: LinearWeights) -> str:
    """What the clip cuts."""
    clipping = linear.clipping
    if clipping is None:
        return "Nothing of it is clipped."
    if not clipping.clipped:
        return f"None of its {clipping.groups:,} groups is cut."
    most = CUT_STEP * (len(clipping.steps) - 1)
    return (
        f"{clipping.clipped:,} of {clipping.groups:,} groups are cut, by up to {most:.0%} of their "
        f"range; {write_share(clipping.weights, '.2%')} of the weights are."
    )


def write_codes(linear: LinearWeights) -> str:
    """How the codes are used."""
    if linear.used_in_group is None or linear.saturated is None:
        return ""
    count = len(linear.codes)
    are = "is" if linear.unused == 1 else "are"
    unused = (
        f"{linear.unused} of {count} codes {are} unused"
        if linear.unused
        else f"All {count} codes are used"
    )
    return (
        f"{unused}; a group of {linear.group} has {linear.used_in_group:.1f} different ones. "
        f"{write_share(linear.saturated)} of the weights are saturated: they have the least or the "
        "largest code."
    )


def write_worst(linear: LinearWeights, answer: BlockWeights) -> str:
    """The group that is rounded worst, and whose it is."""
    known = [group for group in linear.groups if group.error is not None]
    if not known:
        return ""
    worst = max(known, key=lambda group: group.error or 0.0)
    whose = name_owner(worst, answer)
    return (
        f"Row {worst.row}, group {worst.group}{f', {whose},' if whose else ''} is rounded worst: "
        f"its error is {write_error(worst)} of it. A group's error is relative to its own norm, or "
        "to that of the linear's typical group where its own is smaller."
    )


def write_error(group: GroupValues) -> str:
    """A group's relative error, to two digits."""
    return NOTHING if group.error is None else write_percent(group.error)


def name_owner(group: GroupValues, answer: BlockWeights) -> str:
    """Whose weights a group is: "queries of head 3", "keys of key-value head 1 (of heads 2–3)"."""
    if group.role is None or not group.heads:
        return ""
    shared = group.role in "kv" and answer.heads != answer.kv_heads
    kind = "key-value head" if shared else "head"
    heads = f"{kind}{'s' * (len(group.heads) > 1)} {write_ranges(group.heads)}"
    served = f" (of heads {write_ranges(group.serves)})" if shared else ""
    what = "columns" if group.role == "o" else ROLE_NAMES[group.role]
    return f"{what} of {heads}{served}"


def worst_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The worst weight groups of a linear in a cell, and each in cells of its own, as WORST_APART
    has them. row: of weights.parquet."""
    found = zip(row["worst_rows"], row["worst_groups"], row["worst_errors"], strict=True)
    said: list[str] = []
    cells: dict[str, str] = {}
    for at, (number, group, error) in enumerate(list(found)[:NAMED_GROUPS], 1):
        share = write_share(error)
        said.append(f"row {number} group {group} ({share})")
        cells |= {f"row {at}": str(number), f"group {at}": str(group), f"error {at}": share}
    return cells | {"groups": ", ".join(said)}


def name_group(group: GroupValues) -> str:
    """A group in an address: `ROW:GROUP`."""
    return f"{group.row}:{group.group}"


def group_row(group: GroupValues, answer: BlockWeights) -> dict[str, str]:
    """A group's cells, as GROUP_COLUMNS has them."""
    return {
        "row": str(group.row),
        "group": str(group.group),
        "head": name_owner(group, answer) or NOTHING,
        "channels": write_span(min(group.channels), max(group.channels)),
        "error": write_error(group),
        "reach": write_number(group.reach, ".3g"),
        "cut": write_share(group.cut, ".0%"),
        "scale": write_number(group.scale, ".3g"),
        "zero": NOTHING if group.zero is None else str(group.zero),
    }


def write_group(group: GroupValues) -> str:
    """One group, in a sentence."""
    parts = [f"Its error is {write_error(group)} of it"] if group.error is not None else []
    if group.reach is not None:
        parts.append(f"with the largest activations it moves its output by up to {group.reach:.3g}")
    if group.cut is not None:
        parts.append(
            f"the clip cuts {write_share(group.cut, '.0%')} of its range"
            if group.cut
            else "nothing of its range is cut"
        )
    if group.scale is not None:
        zero = "" if group.zero is None else f" and zero point {group.zero}"
        parts.append(f"it is stored with the scale {group.scale:.3g}{zero}")
    return f"{'; '.join(parts)}." if parts else ""


def value_rows(group: GroupValues) -> list[dict[str, str]]:
    """A group's weights, 16-bit beside stored."""
    codes: Sequence[int | None] = group.codes or [None] * len(group.channels)
    return [
        {
            "channel": str(channel),
            "reference": write_number(reference, ".4g"),
            "stored": write_number(stored, ".4g"),
            "difference": write_number(stored - reference, "+.2g"),
            "code": NOTHING if code is None else str(code),
        }
        for channel, reference, stored, code in zip(
            group.channels, group.reference, group.stored, codes, strict=True
        )
    ]


VALUE_COLUMNS = {
    "channel": "Input channel",
    "reference": "16-bit",
    "stored": "Stored",
    "difference": "Difference",
    "code": "Code",
}


def sort_channels(channels: Sequence[ChannelSize]) -> list[ChannelSize]:
    """Channels, the largest first: by scale, else by activation, else by weight."""
    return sorted(
        channels,
        key=lambda each: (each.scale or 0.0, each.activation or 0.0, each.weight or 0.0),
        reverse=True,
    )


def largest_channels(linear: LinearWeights) -> list[ChannelSize]:
    """The channels that a table names."""
    return sort_channels(linear.channels)[:NAMED_CHANNELS]


def channel_row(channel: ChannelSize) -> dict[str, str]:
    """A channel's cells, as CHANNEL_COLUMNS has them."""
    return {
        "channel": str(channel.channel),
        "scale": write_number(channel.scale, ".3g"),
        "activation": write_number(channel.activation, ".3g"),
        "weight": write_number(channel.weight, ".3g"),
    }


def part_rows(linear: LinearWeights) -> list[dict[str, str]]:
    """What a linear is stored in."""
    return [
        {
            "name": part.name,
            "dtype": part.dtype,
            "shape": " × ".join(f"{size:,}" for size in part.shape) or "1",
            "bytes": write_size(part.bytes),
        }
        for part in linear.tensors
    ]


def name_step(step: int) -> str:
    """A step of the clip's histogram: "none", "5%", "10%"."""
    return write_share(CUT_STEP * step, ".0%") if step else Written("none", 0.0)


def draw_bars(counts: Sequence[int], width: int = 64) -> str:
    """Counts as a line of bars, several to a bar where there are more than `width`."""
    some = -(-len(counts) // width) if counts else 1
    sums = [sum(counts[start : start + some]) for start in range(0, len(counts), some)]
    most = max(sums, default=0)
    if not most:
        return ""
    return "".join(" " if not each else BARS[(len(BARS) - 1) * each // most] for each in sums)
