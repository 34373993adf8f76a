"""`awqscope explain`: which block breaks a prompt, and what repairs it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import (
    STDOUT,
    begin_computing,
    check_output,
    examples,
    warn_of_type,
    write_output,
)
from awqscope.app.command_line.options import MovedModelOption, RunArgument
from awqscope.diagnose.options.amounts import parse_bytes
from awqscope.mixedprec.errors import InputError


@examples(
    "awqscope explain reports/my-model --prompt 'Return the value of the'",
    "awqscope explain reports/my-model --prompts prompts.jsonl -o found.json",
)
def explain(
    path: RunArgument,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="A prompt.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='A file of them: .txt, one a line, or .jsonl with a "prompt" each.'
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(metavar="N", help="Tokens to go on with.")] = 48,
    model: MovedModelOption = None,
    max_memory: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="A model that fits is decoded from memory, another read for each token.",
        ),
    ] = "8GiB",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the result as JSON to this file; - is stdout.",
        ),
    ] = None,
) -> None:
    """Say which block breaks a prompt, and what repairs it.

    Both models continue the prompt greedily, as it is, without a chat template. Where they part,
    every block is quantized alone and restored alone, and the cheapest units are found whose
    promotion to the run's rescue width brings the 16-bit model's token back.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.explanation import show_explained
    from awqscope.app.terminal.progress import show_progress
    from awqscope.diagnose.explain.explain import explain as explain_prompts
    from awqscope.diagnose.explain.greedy import fits_in_memory
    from awqscope.diagnose.explain.prompts import read_prompts
    from awqscope.diagnose.machine.memory import return_freed_tensors
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.trials.finished import open_run

    if (prompt is None) == (prompts is None):
        raise InputError("one prompt or a file of them is needed", "give --prompt or --prompts")
    if tokens < 1:
        raise InputError(f"--tokens {tokens} is too small", "give at least 1")
    if out is not None:
        check_output(out)
    budget = parse_bytes(max_memory)
    return_freed_tensors()
    begin_computing()
    asked = [prompt] if prompt is not None else read_prompts(Path(str(prompts)))
    opened = open_run(RunDirectory(path), model)
    if not fits_in_memory(opened.model, budget):
        sys.stderr.write(
            f"the model does not fit in --max-memory {max_memory}: "
            "its weights are read again for every token\n"
        )
    try:
        with show_progress() as on_progress:
            result = explain_prompts(opened, asked, tokens, budget, on_progress).to_json()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("nothing was written") from error
    warn_of_type(opened.run.read())
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if out not in (None, STDOUT):
        write_output(out, text)
    if as_json or out == STDOUT:
        write_output(STDOUT, text)
        return
    width = None if sys.stdout.isatty() else 120
    show_explained(result, PlainConsole(width=width, highlight=False))
