"""The alternatives to a run's uniform model in the terminal."""

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


def show_alternatives(found: Alternatives, console: Console) -> None:
    """Print what the table comes to, the table, and what else has to be known."""
    console.print(Text(" ".join(write_finding(found)), style="bold"))
    console.print(_draw_table(COLUMNS, alternative_rows(found)))
    columns = block_columns(found)
    if columns:
        windows = f"{found.block_windows:,} windows"
        console.print(Text(f"KL of each block alone in the 16-bit model, on {windows}:"))
        console.print(_draw_table(columns, block_rows(found)))
    for note in list_notes(found):
        console.print(Text(note))
    console.print(Text(write_how(found), style="dim"))


def _draw_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Table:
    """Rows under columns, numbers to the right; the run's own in bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, head in columns.items():
        is_number = all(reads_as_number(row[key]) for row in rows if row[key])
        table.add_column(Text(head), justify="right" if is_number else "left")
    for row in rows:
        style = "bold" if row.get("class") else ""
        table.add_row(*(Text(row[key]) for key in columns), style=style)
    return table
