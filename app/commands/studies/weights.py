"""`awqscope weights`: what is stored of a unit's weights, beside their 16 bits."""

import json
import sys
from typing import Annotated

import typer

from awqscope.app.command_line.common import STDOUT, begin_computing, examples, write_output
from awqscope.app.command_line.options import MovedModelOption, RunArgument


@examples("awqscope weights reports/my-model 5.qkv", "awqscope weights reports/my-model 5 --json")
def weights(
    path: RunArgument,
    unit: Annotated[
        str, typer.Argument(metavar="UNIT", help="A unit, such as 5.qkv, or a whole block: 5.")
    ],
    linear: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this linear: its name, or the end of it."),
    ] = None,
    model: MovedModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Look at the weights of a unit: scales, clips, codes and the groups rounded worst.

    What is stored stands beside the 16-bit weights. Codes are those of the run's checkpoint, or
    without one as its searches and its model give them. The answer, of the whole block, stays with
    the run; the same question again is answered from there.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.progress import show_progress
    from awqscope.app.terminal.studies.weights import show_weights
    from awqscope.diagnose.machine.memory import return_freed_tensors
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.weights.asked import check_asked, choose_linears, read_asked
    from awqscope.diagnose.studies.weights.look import look_at_weights, read_weights
    from awqscope.diagnose.trials.finished import open_run

    asked, run = read_asked(unit), RunDirectory(path)
    check_asked(run.read_measured(), asked)
    answer = read_weights(run, asked.block)
    if answer is None:
        return_freed_tensors()
        begin_computing()
        opened = open_run(run, model)
        with show_progress() as on_progress:
            answer = look_at_weights(opened, asked.block, on_progress)
    answer = choose_linears(answer, asked, linear)
    if as_json:
        text = json.dumps(answer.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_output(STDOUT, text + "\n")
        return
    width = None if sys.stdout.isatty() else 150
    show_weights(answer, PlainConsole(width=width, highlight=False))
