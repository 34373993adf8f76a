"""`awqscope alternatives`: other ways to quantize a run's model, in one table."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from awqscope.app.command_line.common import begin_computing, examples
from awqscope.app.command_line.options import MovedModelOption, RunArgument
from awqscope.mixedprec.errors import InputError


@examples(
    "awqscope alternatives reports/my-model",
    "awqscope alternatives reports/my-model --add gptq=./my-model-gptq",
    "awqscope alternatives reports/my-model --only rtn --only nf4 --by-block",
)
def alternatives(
    path: RunArgument,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this one and what --add names alone; repeatable. --only list names all.",
        ),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CHECKPOINT",
            help="A checkpoint that another tool made of the run's model, as `compare` reads it; "
            "repeatable.",
        ),
    ] = None,
    by_block: Annotated[
        bool, typer.Option("--by-block", help="Measure each block alone too: takes long.")
    ] = False,
    model: MovedModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Compare other ways to quantize the model of a finished run.

    RTN, AWQ with other groups and widths, NF4, GGUF types, the run's mixed recipe and checkpoints
    of other tools are measured on the run's own windows, each against its uniform AWQ, paired by
    token. The answer is kept in RUN/studies/: asked again, only what is new is measured. A run
    comes from `awqscope run MODEL`. It computes on the CPU, in float32, or in bfloat16 where the
    run did.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.studies.alternatives import show_alternatives
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.alternatives.asked import check_added, find_kept
    from awqscope.diagnose.studies.alternatives.methods import NAMES

    if only == ["list"]:
        print("\n".join(NAMES))
        return
    added, run = read_all_added(add or ()), RunDirectory(path)
    check_added(added)
    kept = find_kept(run, only=only or (), by_block=by_block)
    found = None if added else kept
    if found is None:
        from awqscope.app.terminal.progress import show_progress
        from awqscope.diagnose.studies.alternatives.compare import compare_alternatives
        from awqscope.diagnose.trials.finished import open_run

        begin_computing()
        opened = open_run(run, model)
        with show_progress() as on_progress:
            found = compare_alternatives(
                opened, on_progress, only=only or (), added=added, by_block=by_block
            )
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    width = None if sys.stdout.isatty() else 160
    show_alternatives(found, PlainConsole(width=width, highlight=False))


def read_all_added(texts: Sequence[str]) -> dict[str, str]:
    """Name -> checkpoint of every `--add`. InputError for a name that two have."""
    pairs = [read_added(text) for text in texts]
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two checkpoints are called {twice}", "give each --add another name")
    return dict(pairs)


def read_added(text: str) -> tuple[str, str]:
    """The name and the checkpoint of an `--add`. InputError for anything else."""
    name, equals, checkpoint = text.partition("=")
    if not (name and equals and checkpoint):
        raise InputError(f"--add {text} names no checkpoint", "give it like gptq=./checkpoint")
    return name, checkpoint
