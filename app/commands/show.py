"""`awqscope show`: what a run found, in the terminal."""

import json
import sys
from pathlib import Path

from awqscope.app.command_line.common import examples
from awqscope.app.command_line.options import RunArgument, takes
from awqscope.app.commands.list import print_runs
from awqscope.diagnose.runs.naming import RUNS, find_kind
from awqscope.diagnose.runs.spec import RunSpec


@examples("awqscope show reports/my-model", "awqscope show reports/my-model --json")
@takes(RunSpec, only=("as_json",))
def show(path: RunArgument, as_json: bool) -> None:
    """Print what a run found: verdict, numbers, blocks, recipe.

    Of a directory of runs, it lists them. A run that stopped is shown with the command to go on.
    """
    if find_kind(path) == RUNS:
        print_runs(path, as_json)
        return
    print_run(path, as_json)


def print_run(path: Path, as_json: bool) -> None:
    """A run's headline as JSON, or all of it in words and tables."""
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.run import show_run, write_run_json
    from awqscope.diagnose.runs.directory import RunDirectory, reads_run

    run = RunDirectory(path)
    if as_json:
        with reads_run(path):
            told = write_run_json(run)
        print(json.dumps(told, indent=2))
        return
    width = None if sys.stdout.isatty() else 150
    with reads_run(path):
        show_run(run, PlainConsole(width=width, highlight=False, soft_wrap=False))
