"""A look at weights in the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.studies.weights import (
    CHANNEL_COLUMNS,
    GROUP_COLUMNS,
    PART_COLUMNS,
    channel_row,
    draw_bars,
    group_row,
    largest_channels,
    part_rows,
    write_channels,
    write_clipping,
    write_codes,
    write_fit,
    write_source,
    write_stored,
    write_worst,
)
from awqscope.diagnose.studies.weights.answer import BlockWeights, LinearWeights

# What is printed of longer lists.
MOST_GROUPS, MOST_CHANNELS = 8, 6


def show_weights(answer: BlockWeights, console: Console) -> None:
    """Print what is stored of every linear of an answer."""
    console.print(Text(write_source(answer)))
    for linear in answer.linears:
        console.print(Text(f"\n{answer.block}.{linear.unit}: {linear.linear}", style="bold"))
        _show_linear(linear, answer, console)


def _show_linear(linear: LinearWeights, answer: BlockWeights, console: Console) -> None:
    for sentence in (
        write_stored(linear),
        write_fit(linear),
        write_channels(linear),
        write_clipping(linear),
        write_codes(linear),
    ):
        if sentence:
            console.print(Text(sentence))
    for name, counts in (("codes      ", linear.codes), ("zero points", linear.zeros)):
        bars = draw_bars(counts)
        if bars:
            console.print(Text(f"{name} {bars}"))
    console.print(_table("stored in", PART_COLUMNS, part_rows(linear)))
    if linear.linear in answer.brief:
        return
    channels = [channel_row(channel) for channel in largest_channels(linear)[:MOST_CHANNELS]]
    console.print(_table("input channels with the largest scales", CHANNEL_COLUMNS, channels))
    if linear.groups:
        console.print(Text(write_worst(linear, answer)))
        groups = [group_row(group, answer) for group in linear.groups[:MOST_GROUPS]]
        console.print(_table("weight groups with the largest error", GROUP_COLUMNS, groups))


def _table(title: str, columns: dict[str, str], rows: list[dict[str, str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for number, heading in enumerate(columns.values()):
        table.add_column(heading, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(row[key] for key in columns))
    return table
