"""The alternatives to a run's uniform model in the terminal."""

import textwrap
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.numbers import reads_as_number
from awqscope.app.words.studies.alternatives import (
    COLUMNS,
    alternative_rows,
    block_columns,
    block_rows,
    list_notes,
    write_finding,
    write_how,
)
from awqscope.diagnose.studies.alternatives.answer import Alternatives

# What a table's lines are named by, which is never broken.
FIRST = ("name", "block")


def show_alternatives(found: Alternatives, console: Console) -> None:
    """Print what the table comes to, the table, and what else has to be known."""
    console.print(Text(" ".join(write_finding(found)), style="bold"))
    console.print(_draw_table({"name": "Name", **COLUMNS}, alternative_rows(found)))
    columns = block_columns(found)
    if columns:
        windows = f"{found.block_windows:,} windows"
        console.print(Text(f"KL of each block alone in the 16-bit model, on {windows}:"))
        console.print(_draw_table(columns, block_rows(found)))
    for note in list_notes(found):
        console.print(Text(note))
    console.print(Text(write_how(found), style="dim"))


def _draw_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Table:
    """Rows under columns, numbers to the right; the run's own in bold. No heading is wider than
    its cells, so that intervals have room."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for key, head in columns.items():
        is_number = all(reads_as_number(row[key]) for row in rows if row[key])
        side = "right" if is_number else "left"
        widest = max((len(row[key]) for row in rows), default=len(head))
        heading = textwrap.fill(head, max(widest, 1), break_long_words=False)
        table.add_column(Text(heading), justify=side, no_wrap=key in FIRST, overflow="fold")
    for row in rows:
        style = "bold" if row.get("class") else ""
        table.add_row(*(Text(row[key]) for key in columns), style=style)
    return table
