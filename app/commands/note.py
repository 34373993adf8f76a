"""`awqscope note`: what people say of a run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from awqscope.app.command_line.common import examples
from awqscope.app.command_line.options import RunArgument
from awqscope.mixedprec.errors import InputError


@examples(
    "awqscope note reports/my-model",
    "awqscope note reports/my-model --name 'second try' --tag release --tag 4-bit",
    "awqscope note reports/my-model --note 'block 29 again: see the probe'",
    "awqscope note reports/old-model --archive",
)
def note(
    path: RunArgument,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it; '' for nothing.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag to give it; repeatable.")
    ] = None,
    untag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag to take away; repeatable.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="A note to add, with the time.")
    ] = None,
    unnote: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="A note to take away, from 1 on.")
    ] = None,
    archive: Annotated[
        bool, typer.Option("--archive", help="Leave it out of lists that do not ask for it.")
    ] = False,
    unarchive: Annotated[
        bool, typer.Option("--unarchive", help="Put it into every list again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Give a run a name, tags and notes, or archive it; without options, print them.

    They are kept in its notes.json, and nothing else changes: also while it is worked on.
    """
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.runs.notes import Change, change_notes, read_notes

    if archive and unarchive:
        raise InputError("--archive and --unarchive are opposites", "give one of them")
    run = RunDirectory(path)
    change = Change(
        name=name,
        tags=tag or (),
        untags=untag or (),
        note=text,
        unnote=unnote,
        archived=True if archive else False if unarchive else None,
    )
    if change == Change():
        if not run.exists():
            run.read()
        notes = read_notes(path)
    else:
        notes = change_notes(run, change)
    print_notes(path, notes, as_json)


def print_notes(path: Path, notes: Any, as_json: bool) -> None:
    """What is said of a run, as JSON or in lines."""
    from awqscope.app.terminal.console import show_controls
    from awqscope.app.terminal.notes import write_notes

    if as_json:
        print(json.dumps({"run": str(path), **notes.to_json()}, indent=2))
        return
    lines = write_notes(notes) or ["no name, tags or notes"]
    print("\n".join(show_controls(line) for line in lines))
