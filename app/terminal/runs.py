"""Every run of a directory, for the terminal and for scripts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from awqscope.app.store import RunSummary
from awqscope.app.terminal.console import show_controls
from awqscope.app.words.verdict import write_brief
from awqscope.diagnose.runs.resuming import write_resuming
from awqscope.mixedprec.words import write_number

NUMBERS = ("PPL 16-bit", "quantized", "mixed", "KL quantized", "KL mixed")
COLUMNS = ("run", "state", *NUMBERS, "verdict", "begun (UTC)", "model")
# Where any run has them.
SAID = ("name", "tags")
UNFINISHED = ("stopped", "failed")


def resuming_command(run: RunSummary, root: Path) -> str | None:
    """The command that continues a run that stopped; None where none does, or none is needed."""
    if run.record is None or run.state not in UNFINISHED:
        return None
    return write_resuming(run.record, root / run.name)


def choose_runs(
    runs: Sequence[RunSummary], tags: Sequence[str], everything: bool
) -> list[RunSummary]:
    """Those with all `tags`, archived ones only where `everything` is wanted."""
    return [
        run
        for run in runs
        if set(tags) <= set(run.notes.tags) and (everything or not run.notes.archived)
    ]


def write_left_out(
    found: Sequence[RunSummary], shown: Sequence[RunSummary], tags: Sequence[str]
) -> str:
    """How many runs a list leaves out, and how they are had; empty where it leaves out none."""
    wanted = choose_runs(found, tags, everything=True)
    archived = len(wanted) - len(shown)
    if not wanted:
        return f"no run has the tag {' and '.join(tags)}"
    runs = f"{archived} archived run{'s' * (archived != 1)}"
    is_one = archived == 1
    return f"{runs} {'is' if is_one else 'are'} left out; --all lists them" if archived else ""


def write_runs(runs: Sequence[RunSummary], root: Path) -> list[str]:
    """A line a run, and below them how to go on with those that stopped. Nothing is cut: lines may
    be wider than a terminal, and are for `grep` too."""
    said = any(run.notes.name or run.notes.tags for run in runs)
    columns = (*COLUMNS[:1], *(SAID if said else ()), *COLUMNS[1:])
    rows = [columns, *(_list_cells(run, said) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    for run in runs:
        command = resuming_command(run, root)
        if command is not None:
            lines.append(f"{run.name}: go on with it: {command}")
        if run.notes_error:
            lines.append(f"{run.name}: {run.notes_error}")
    return [show_controls(" ".join(line.splitlines())) for line in lines]


def _list_cells(run: RunSummary, said: bool) -> tuple[str, ...]:
    """The cells of a line. said: whether names and tags are columns."""
    notes, record = run.notes, run.record
    headline = None if record is None else record.headline
    ppl: Sequence[float | None] = [None] * 3
    kl: Sequence[float | None] = [None] * 2
    if headline is not None:
        ppl = headline.ppl.reference, headline.ppl.quantized, headline.ppl.mixed
        kl = headline.kl.quantized, headline.kl.mixed
    return (
        run.name,
        *((notes.name, ", ".join(notes.tags)) if said else ()),
        run.state + ", archived" * notes.archived,
        *(write_number(value, ",.3f") for value in ppl),
        *(write_number(value, ".5f") for value in kl),
        run.error if record is None else write_brief(run.state, record),
        "" if record is None else record.created[:16].replace("T", " "),
        "" if record is None else record.model,
    )


def list_json(runs: Sequence[RunSummary], root: Path) -> list[dict[str, Any]]:
    """The runs for scripts: `resume` is the command that continues one, or null."""
    return [
        {
            "name": run.name,
            "path": str(root / run.name),
            "state": run.state,
            **_list_entries(run),
            "notes": run.notes.to_json(),
            "resume": resuming_command(run, root),
        }
        for run in runs
    ]


def _list_entries(run: RunSummary) -> dict[str, Any]:
    """What the record of a run says; null where it has none."""
    record = run.record
    if record is None:
        return {"model": None, "created": None, "headline": None, "error": run.error or None}
    stored = record.to_json()
    told = {entry: stored[entry] for entry in ("model", "created", "headline")}
    return told | {"error": record.error and record.error.message}
