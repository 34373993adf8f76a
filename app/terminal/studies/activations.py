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
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, name in columns.items():
        if key == "block":
            table.add_column("block", justify="right", no_wrap=True, min_width=len("block"))
        else:
            table.add_column(f"{name} [95%]", justify="right", overflow="fold")
    for row in list_rows(answer, SIGN):
        table.add_row(*(_put_sign_first(str(row[key])) for key in columns))
    console.print(table)
    said = f"{write_sample(answer)}; {SIGN}: the block refuses it"
    console.print(Text(said, style="dim"))


def _put_sign_first(cell: str) -> str:
    """The sign before its number, where it stays when a narrow cell is broken."""
    number = cell.removesuffix(f" {SIGN}")
    return cell if number == cell else f"{SIGN} {number}"
