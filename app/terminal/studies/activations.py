"""What int8 inputs cost, in the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.studies.activations import (
    SIGN,
    list_columns,
    list_rows,
    write_answer,
    write_sample,
)
from awqscope.diagnose.studies.int8_inputs.answer import Activations


def show_activations(answer: Activations, console: Console) -> None:
    """Print what was found, and a line a block."""
    console.print()
    for said in write_answer(answer):
        console.print(Text(said, style="bold"))
    columns = list_columns(answer)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name in columns.values():
        shown = name.lower() if name == "Block" else f"{name} [95%]"
        table.add_column(shown, justify="right", no_wrap=True)
    for row in list_rows(answer, SIGN):
        table.add_row(*(str(row[key]) for key in columns))
    console.print(table)
    said = f"{write_sample(answer)}; {SIGN}: the block refuses it"
    console.print(Text(said, style="dim"))
