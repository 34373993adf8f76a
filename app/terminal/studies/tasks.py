"""The tasks of a run in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.studies.tasks import (
    COLUMNS,
    list_notes,
    task_rows,
    write_finding,
    write_how,
)
from awqscope.diagnose.studies.tasks.answer import Tasks
from awqscope.diagnose.studies.tasks.pairing import weigh_tasks


def show_tasks(found: Tasks, console: Console, stale: Sequence[str]) -> None:
    """Print what the tasks come to, the table, and what else has to be known. stale: tasks that the
    mixed model of another recipe was given."""
    weighed, failed = weigh_tasks(found)
    if weighed:
        console.print(Text(" ".join(write_finding(weighed)), style="bold"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for key, head in COLUMNS.items():
            is_name = key in ("task", "model")
            table.add_column(Text(head), justify="left" if is_name else "right", overflow="fold")
        for row in task_rows(weighed):
            table.add_row(*(Text(row[key]) for key in COLUMNS))
        console.print(table)
    for note in list_notes(found, failed, stale):
        console.print(Text(note))
    console.print(Text(write_how(found), style="dim"))


def write_json(found: Tasks, stale: Sequence[str]) -> dict[str, Any]:
    """The tasks for scripts: an entry a task and model, paired with the reference. stale: as
    `show_tasks` takes it."""
    weighed, failed = weigh_tasks(found)
    rows = []
    for each in weighed:
        pair = each.pair
        drop, (worse, better) = pair.bound(), pair.changed
        reference, model = pair.means
        rows.append(
            {
                "task": pair.task,
                "metric": pair.metric,
                "model": pair.name,
                "samples": pair.samples,
                "unpaired": pair.alone,
                "reference": reference,
                "score": model,
                "drop": drop.value,
                "low": finite(drop.low),
                "high": finite(drop.high),
                "worse": worse,
                "better": better,
                "test": "McNemar" if pair.flips is not None else "Student",
                "p": pair.chance,
                "p_adjusted": each.adjusted,
            }
        )
    return {
        "schema": 1,
        "run": found.run,
        "model": found.model,
        "tasks": rows,
        "failed": failed,
        "of_another_recipe": list(stale),
    }


def finite(value: float) -> float | None:
    """A number that JSON can hold, else null."""
    return value if abs(value) < float("inf") else None
