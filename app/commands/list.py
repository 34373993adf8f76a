"""`awqscope list`: every run of a directory, a line each."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import examples
from mixedprec.errors import InputError


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
    if not runs_dir.is_dir():
        raise InputError(f"{runs_dir} is no directory", "give the directory that holds your runs")
    print_runs(runs_dir, as_json)


def print_runs(runs_dir: Path, as_json: bool) -> None:
    """The runs of a directory, as JSON or as a table."""
    from app.listing import list_json, write_runs
    from app.store import Store

    runs = Store(runs_dir).list_runs()
    if as_json:
        print(json.dumps(list_json(runs, runs_dir), indent=2))
        return
    if not runs:
        sys.stderr.write(f"awqscope: {runs_dir} holds no run yet\n")
        return
    print("\n".join(write_runs(runs, runs_dir)))
