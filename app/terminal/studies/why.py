"""The study of a block's causes in the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.numbers import show_token
from awqscope.app.words.studies.why import (
    KIND_NAMES,
    ROLE_NAMES,
    find_guilty,
    list_carriers,
    name_briefly,
    name_point,
    name_served,
    order_linears,
    split_cells,
    to_decibels,
    write_asked,
    write_attention,
    write_carriers,
    write_findings,
    write_growth,
    write_lacking,
    write_part,
    write_percent,
    write_power,
    write_steps,
    write_windows,
)
from awqscope.diagnose.studies.causes.answer import Causes, LinearCauses
from awqscope.mixedprec.words import (
    NOTHING,
    write_bounded,
    write_decibels,
    write_number,
    write_share,
)

# Channels of the dearest linear that are printed.
MOST_CHANNELS = 6


def show_causes(causes: Causes, console: Console) -> None:
    """Print why a block is hurt: the findings first, then a table each for what they rest on."""
    for sentence in write_findings(causes):
        console.print(Text(sentence, style="bold"))
    kl = write_bounded(causes.kl[0], causes.kl[1:])
    measured = f"Block {causes.block} costs KL {kl} nats a token on {write_asked(causes)}."
    console.print(Text(measured))
    for sentence in (write_steps(causes), write_windows(causes), *write_lacking(causes)):
        if sentence:
            console.print(Text(sentence))
    console.print(linears_table(causes))
    if any(linear.heads for linear in causes.linears):
        console.print(heads_table(causes))
    console.print(Text(write_growth(causes)))
    console.print(growth_table(causes))
    if causes.attention:
        console.print(Text(write_attention(causes)))
        console.print(attention_table(causes))
    top = next((linear for linear in order_linears(causes) if linear.channels), None)
    if top is not None:
        console.print(channels_table(top))
    if list_carriers(causes):
        console.print(Text(write_carriers(causes)))
        console.print(carriers_table(causes))


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table with its first columns set left and the others right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    return table


def linears_table(causes: Causes) -> Table:
    """Every linear: what it costs, and the error of its output by AWQ's steps."""
    columns = ["linear", "KL alone", "95%", "of block", "error", "rounding", "scales", "clip"]
    table = _table("error of each output, by AWQ's steps", *columns, "on calib", "clip alone")
    # What is broken where room is short: the two intervals.
    table.collapse_padding = True
    for column in table.columns:
        column.no_wrap = column.header not in ("95%", "of block")
    linears = order_linears(causes)
    names = name_briefly([linear.linear for linear in linears])
    for linear, name in zip(linears, names, strict=True):
        cells = split_cells(linear.split)
        elsewhere = split_cells(linear.calibrated)
        alone = linear.clip_alone
        table.add_row(
            name,
            write_number(linear.kl[0]),
            " to ".join(write_number(each, ".3g") for each in linear.kl[1:]),
            write_part(linear.share),
            *(cells.get(step, NOTHING) for step in ("total", "rounding", "scale", "clip")),
            elsewhere.get("total", NOTHING),
            NOTHING if alone is None else write_share(alone, ".2%"),
        )
    return table


def heads_table(causes: Causes) -> Table:
    """Every head of the linears that have any."""
    columns = ["", "head", "of the linear's error", "of the block's", "condition", "usual"]
    table = _table("by head", *columns, left=2)
    for linear in causes.linears:
        for head in linear.heads:
            usual = causes.usual.get(head.role)
            table.add_row(
                ROLE_NAMES[head.role],
                name_served(head, causes),
                write_share(head.error),
                write_share(head.arrived),
                write_power(head.condition),
                NOTHING if usual is None else write_power(usual),
            )
    return table


def growth_table(causes: Causes) -> Table:
    """The error at every point inside the block."""
    table = _table("along the block", "point", "relative error", "95%", "SQNR")
    for point in causes.growth:
        value, low, high = point.error
        table.add_row(
            name_point(point),
            write_percent(value),
            f"{write_percent(low)} to {write_percent(high)}",
            write_decibels(to_decibels(value)),
        )
    return table


def attention_table(causes: Causes) -> Table:
    """What every head attends to, in both models."""
    columns = ["head", "entropy", "quantized", "first token", "quantized", "moved"]
    table = _table("attention", *columns)
    guilty = find_guilty(causes)
    for head in causes.attention:
        table.add_row(
            str(head.head),
            *(write_number(each, ".3f") for each in head.entropy),
            *(write_share(each) for each in head.first),
            write_share(head.moved, ".2%"),
            style="bold" if head is guilty else "",
        )
    return table


def channels_table(linear: LinearCauses) -> Table:
    """The channels of a linear that hold most of its error."""
    columns: list[Any] = ["channel", "of the error", "mean |x|", "on calibration", "largest |x|"]
    table = _table(
        f"input channels of {linear.linear}, of {linear.channel_count}",
        *columns,
        "mean |w|",
        "scale",
        "clipped",
    )
    for channel in linear.channels[:MOST_CHANNELS]:
        table.add_row(
            str(channel.channel),
            write_share(channel.error),
            write_number(channel.activation, ".3g"),
            write_number(channel.calibrated, ".3g"),
            write_number(channel.largest, ".3g"),
            write_number(channel.weight, ".3g"),
            write_number(channel.scale, ".3g"),
            write_share(channel.clipped),
        )
    return table


def carriers_table(causes: Causes) -> Table:
    """The tokens that carry massive activations."""
    columns = ["token", "into", "what", "channel", "|x|", "times", "window", "position"]
    table = _table("massive activations", *columns, left=3)
    for linear, carrier in list_carriers(causes):
        table.add_row(
            Text(show_token(carrier.text)),
            linear.linear,
            KIND_NAMES[carrier.kind],
            str(carrier.channel),
            write_number(carrier.size, ".3g"),
            write_number(carrier.times, ".0f"),
            str(carrier.window),
            str(carrier.position),
        )
    return table
