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
    from rich.console import Console

    from app.show import show_run
    from diagnose.rundir import RunDirectory

    run = RunDirectory(path)
    if as_json:
        print(json.dumps(run.read()["headline"], indent=2))
        return
    width = None if sys.stdout.isatty() else 150
    show_run(run, Console(width=width, highlight=False, soft_wrap=False))
