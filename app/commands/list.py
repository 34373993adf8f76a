"""`awqscope list`: every run of a directory, a line each."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import check_runs, examples


@examples("awqscope list", "awqscope list /data/runs --json")
def list_runs(
    runs_dir: Annotated[
        Path, typer.Argument(metavar="[RUNS_DIR]", help="Directory that holds runs.")
    ] = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List every run of a directory, a line each, the newest first.

    Below one that stopped or failed stands the command to go on with it.
    """
    check_runs(runs_dir, f"awqscope show {shlex.quote(str(runs_dir))}")
    print_runs(runs_dir, as_json)


def print_runs(runs_dir: Path, as_json: bool) -> None:
    """The runs of a directory, as JSON or as a table."""
    from awqscope.app.store import Store
    from awqscope.app.terminal.runs import list_json, write_runs

    runs = Store(runs_dir).list_runs()
    if as_json:
        print(json.dumps(list_json(runs, runs_dir), indent=2))
        return
    if not runs:
        sys.stderr.write(f"awqscope: {runs_dir} holds no run yet\n")
        return
    print("\n".join(write_runs(runs, runs_dir)))
