"""Several models side by side in the terminal, and one over its releases."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.terminal.gate import STYLES
from awqscope.app.words.compared.many_models import (
    COLUMNS,
    DIFFERENCES,
    Cell,
    Judged,
    difference_cells,
    number_cells,
    write_ranking,
)
from awqscope.app.words.compared.trend import (
    COST_COLUMNS,
    cost_rows,
    write_passage,
    write_settings,
    write_step,
)
from awqscope.app.words.gate.ship import QUESTION, write_ship
from awqscope.diagnose.compared.changes import Step
from awqscope.diagnose.compared.ranking import Ranked
from awqscope.diagnose.compared.standing import Standing
from awqscope.diagnose.gate.findings import Missing
from awqscope.mixedprec.words import NOTHING, write_number

# Tokens of a step that are shown in their passage, of each kind.
MOST_PASSAGES = 5


def show_ranking(
    ranked: Sequence[Ranked], names: Sequence[str], judged: Sequence[Judged], console: Console
) -> None:
    """Print which model to ship, every model's numbers, and the differences to the baseline."""
    said = write_ranking(ranked, names, judged)
    if said:
        console.print(Text(" ".join(said), style="bold"))
    console.print(_numbers_table([one.standing for one in ranked], names, judged))
    base = next(index for index, one in enumerate(ranked) if one.pair is None)
    if len(ranked) > 1:
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            title=f"Differences to {names[base]}, paired by token [95%]",
            title_justify="left",
        )
        _add_columns(table, {"name": "", **DIFFERENCES}, left=("name", "verdict"))
        for name, one in zip(names, ranked, strict=True):
            cells = difference_cells(one, ranked[base])
            table.add_row(Text(name), *(Text(str(cells[key])) for key in DIFFERENCES))
        console.print(table)


def _numbers_table(
    standings: Sequence[Standing], names: Sequence[str], judged: Sequence[Judged]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    _add_columns(table, {"name": "", **COLUMNS, "gate": QUESTION}, left=("name", "gate"))
    for name, standing, verdict in zip(names, standings, judged, strict=True):
        cells: Mapping[str, Cell] = number_cells(standing)
        table.add_row(
            Text(name), *(Text(str(cells[key])) for key in COLUMNS), _write_outcome(verdict)
        )
    return table


def _add_columns(table: Table, columns: Mapping[str, str], left: Sequence[str]) -> None:
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if key in left else "right", overflow="fold")


def _write_outcome(verdict: Judged) -> Text:
    if isinstance(verdict, Missing):
        return Text(NOTHING)
    ship = write_ship(verdict)
    return Text(f"{ship.sign} {ship.answer}", style=STYLES[ship.outcome])


def show_trend(
    standings: Sequence[Standing],
    names: Sequence[str],
    judged: Sequence[Judged],
    steps: Sequence[Step],
    console: Console,
) -> None:
    """Print the numbers of one model's releases in the order of time, and what changed from each to
    the next, the last first."""
    console.print(_numbers_table(standings, names, judged))
    for index, step in reversed(list(enumerate(steps))):
        console.print(Text(f"{names[index]} → {names[index + 1]}", style="bold"))
        for sentence in [*write_step(step), write_settings(step)]:
            if sentence:
                console.print(Text(sentence))
        rows = cost_rows(step)
        if rows:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            _add_columns(table, COST_COLUMNS, left=("of", "what"))
            for row in rows:
                table.add_row(*(Text(row[key]) for key in COST_COLUMNS))
            console.print(table)
        _show_tokens(step, console)
        console.print()


def _show_tokens(step: Step, console: Console) -> None:
    if isinstance(step.tokens, Missing):
        return
    for heading, rows in (("newly broken", step.tokens.worst), ("mended", step.tokens.best)):
        for row in rows[:MOST_PASSAGES]:
            before, token, after = write_passage(row)
            text = Text(f"{heading}: …{before}")
            text.append(token, style="bold reverse")
            text.append(f"{after}…  window {row['window']}, token {row['position']}, ")
            kls = [write_number(row[f"kl_{when}"], ".3f") for when in ("before", "after")]
            text.append(f"KL {' → '.join(kls)}")
            console.print(text)
