"""`awqscope why`: why a block of a run is hurt."""

import json
import sys
from typing import Annotated

import typer

from awqscope.app.command_line.common import STDOUT, begin_computing, examples, write_output
from awqscope.app.command_line.options import MovedModelOption, RunArgument


@examples("awqscope why reports/my-model 29", "awqscope why reports/my-model 29 --json")
def why(
    path: RunArgument,
    block: Annotated[int, typer.Argument(metavar="BLOCK", help="The block's number, from 0.")],
    windows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Windows of the run's validation text to look at. [default: some 2,000 tokens, at "
            "least 4 windows]",
        ),
    ] = None,
    model: MovedModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Say why a block is hurt: by rounding, scales or clipping; in which heads and channels.

    Each linear of the block is quantized alone in the otherwise 16-bit model, and so is what is odd
    about it. The error of its output is split into what each of AWQ's steps does, by head and by
    input channel. The answer stays with the run; the same question again is answered from there,
    and one with other --windows takes its place. It computes on the CPU, in float32.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.progress import show_progress
    from awqscope.app.terminal.studies.why import show_causes
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.causes.answer import read_causes
    from awqscope.diagnose.studies.study import check_block

    run = RunDirectory(path)
    check_block(run.read_measured(), block)
    causes = read_causes(run, block, windows)
    if causes is None:
        from awqscope.diagnose.machine.memory import return_freed_tensors
        from awqscope.diagnose.studies.causes.find import find_causes
        from awqscope.diagnose.trials.finished import open_run

        return_freed_tensors()
        begin_computing()
        opened = open_run(run, model)
        with show_progress() as on_progress:
            causes = find_causes(opened, block, windows, on_progress)
    if as_json:
        text = json.dumps(causes.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_output(STDOUT, text + "\n")
        return
    width = None if sys.stdout.isatty() else 150
    show_causes(causes, PlainConsole(width=width, highlight=False))
