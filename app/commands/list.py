"""`awqscope list`: every run of a directory, a line each."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import check_runs, examples


@examples("awqscope list", "awqscope list /data/runs --json", "awqscope list --tag release --all")
def list_runs(
    runs_dir: Annotated[
        Path, typer.Argument(metavar="[RUNS_DIR]", help="Directory that holds runs.")
    ] = Path("reports"),
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Only runs with this tag; repeatable, with all of them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Archived runs too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List every run of a directory, a line each, the newest first.

    Below one that stopped or failed stands the command to go on with it. Archived ones are left
    out (see `awqscope note`).
    """
    check_runs(runs_dir, f"awqscope show {shlex.quote(str(runs_dir))}")
    print_runs(runs_dir, as_json, tag or (), everything)


def print_runs(
    runs_dir: Path, as_json: bool, tags: Sequence[str] = (), everything: bool = False
) -> None:
    """The runs of a directory, as JSON or as a table. tags: that each has; everything: archived
    ones too."""
    from awqscope.app.store import Store
    from awqscope.app.terminal.runs import choose_runs, list_json, write_left_out, write_runs

    found = Store(runs_dir).list_runs()
    runs = choose_runs(found, tags, everything)
    if as_json:
        print(json.dumps(list_json(runs, runs_dir), indent=2))
        return
    if not found:
        sys.stderr.write(f"awqscope: {runs_dir} holds no run yet\n")
        return
    if runs:
        print("\n".join(write_runs(runs, runs_dir)))
    left_out = write_left_out(found, runs, tags)
    sys.stderr.write(f"awqscope: {left_out}\n" if left_out else "")
