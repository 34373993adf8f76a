"""`awqscope show`: what a run found, in the terminal."""

import json
import sys
from pathlib import Path

from app.commands.common import JsonOption, RunArgument


def show(path: RunArgument, as_json: JsonOption = False) -> None:
    """Print what a run found: verdict, numbers, blocks, recipe."""
    print_run(path, as_json)


def print_run(path: Path, as_json: bool) -> None:
    """A run's headline as JSON, or all of it in words and tables."""
    from app.show import show_run
    from app.terminal import PlainConsole
    from diagnose.rundir import RunDirectory, reads_run

    run = RunDirectory(path)
    if as_json:
        with reads_run(path):
            headline = run.read()["headline"]
        print(json.dumps(headline, indent=2))
        return
    width = None if sys.stdout.isatty() else 150
    with reads_run(path):
        show_run(run, PlainConsole(width=width, highlight=False, soft_wrap=False))
