"""`awqscope activations`: which blocks refuse int8 inputs."""

import json
import sys
from typing import Annotated

import typer

from awqscope.app.command_line.common import STDOUT, begin_computing, examples, write_output
from awqscope.app.command_line.options import MovedModelOption, RunArgument
from awqscope.diagnose.studies.int8_inputs.answer import INT8, METHODS


@examples(
    "awqscope activations reports/my-model",
    "awqscope activations reports/my-model --method llm.int8 --method smoothquant",
)
def activations(
    path: RunArgument,
    method: Annotated[
        list[str],
        typer.Option(metavar="NAME", help=f"{', '.join(METHODS)}; repeatable."),
    ] = [INT8],
    windows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many of the windows that the run measured its blocks on. [default: all]",
        ),
    ] = None,
    model: MovedModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say which blocks refuse int8 activations, beside which refuse 4-bit weights.

    Weights and inputs of a block's linears are rounded to 8 bits as servers of W8A8 do, each block
    alone, up to each block, and all but each block, on the windows that the run measured its blocks
    on. What was measured before on as many windows is kept and shown too; on another number of
    windows it gives way. It computes on the CPU, in float32.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.studies.activations import show_activations
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.int8_inputs.asked import ask, list_missing, read_known

    run = RunDirectory(path)
    answer = read_known(ask(run, method, windows))
    if list_missing(answer, method):
        from awqscope.app.terminal.progress import show_progress
        from awqscope.diagnose.machine.memory import return_freed_tensors
        from awqscope.diagnose.studies.int8_inputs.measure import measure_activations
        from awqscope.diagnose.trials.finished import open_run

        return_freed_tensors()
        begin_computing()
        opened = open_run(run, model)
        with show_progress() as on_progress:
            answer = measure_activations(opened, method, on_progress, windows=windows)
    if as_json:
        found = json.dumps(answer.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_output(STDOUT, f"{found}\n")
        return
    width = None if sys.stdout.isatty() else 160
    show_activations(answer, PlainConsole(width=width, highlight=False))
