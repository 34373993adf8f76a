"""Advice on a run's calibration in the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.numbers import reads_as_number
from awqscope.app.words.studies.calibration import (
    CURVE_COLUMNS,
    PAIR_COLUMNS,
    curve_rows,
    list_texts,
    matrix_columns,
    matrix_rows,
    pair_rows,
    write_advice,
    write_how,
)
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from awqscope.mixedprec.words import write_duration

if TYPE_CHECKING:
    from awqscope.diagnose.studies.calibration.planning import Plan


def show_calibration(advice: CalibrationAdvice, console: Console) -> None:
    """Print what follows, and the tables that it follows from."""
    for sentence in write_advice(advice):
        console.print(Text(sentence, style="bold"))
    console.print(Text(write_how(advice), style="dim"))
    console.print(draw_table(CURVE_COLUMNS, curve_rows(advice)))
    if advice.pairs:
        console.print(draw_table(PAIR_COLUMNS, pair_rows(advice)))
    if len(list_texts(advice)) > 1 or len(advice.columns) > 1:
        console.print(draw_table(matrix_columns(advice), matrix_rows(advice)))


def draw_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Table:
    """Rows under columns, numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, head in columns.items():
        is_number = all(reads_as_number(row[key]) for row in rows if row[key])
        table.add_column(Text(head), justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(Text(row[key]) for key in columns))
    return table


def write_plan(plan: "Plan") -> str:
    """What a study will take, in a line."""
    if not plan.models:
        return "nothing is searched or measured: the answer is kept"
    least, most = plan.tokens
    read = f"{least:,} to {most:,}" if least < most else f"{most:,}"
    searching = f"{plan.searches} searches of {read} tokens, " if plan.searches else ""
    about = "" if plan.seconds is None else f": about {write_duration(plan.seconds)}"
    return f"{searching}{plan.models} models measured on {plan.windows} windows{about}"
