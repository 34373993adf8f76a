"""`awqscope probe`: what would help a block."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from awqscope.mixedprec.errors import InputError

if TYPE_CHECKING:
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.probes.answer import BlockProbe


@examples(
    "awqscope probe reports/my-model",
    "awqscope probe reports/my-model 5 --calib-also code.txt",
    "awqscope probe reports/my-model 5 --apply o-8 -o better.json",
)
def probe(
    path: RunArgument,
    blocks: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[BLOCK]...",
            help="Numbers of blocks. [default: the flagged ones, else the worst]",
        ),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Windows of the run's text to measure on, at least 2. [default: as many as are "
            "done in a minute or two, at least 4]",
        ),
    ] = None,
    calib_also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Another text to try calibrating on, as --calib takes it; repeatable.",
        ),
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(
            metavar="ALTERNATIVE",
            help="Write a recipe of this alternative, named as in the first column.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where --apply writes; - is stdout. [default: a file in RUN/recipes/]",
        ),
    ] = None,
    model: MovedModelOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answers as JSON, a list.")
    ] = False,
) -> None:
    """Say what would help a block, and for how many bytes.

    Other weight groups, each unit at the rescue width, no clipping, other calibration and more:
    each is searched for the block alone, and measured in its place alone and in the quantized
    model. Sorted by KL given back a byte. The answer is kept in RUN/studies/; asked again, it is
    read from there, and one to other options takes its place. It computes on the CPU, in float32.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.studies.probe import show_probe
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.probes.applying import check_applies
    from awqscope.diagnose.studies.probes.asked import choose_blocks

    if out is not None and apply is None:
        raise InputError("-o is where --apply writes", "give both, or --json to print the answers")
    if out == STDOUT and as_json:
        raise InputError("--json and -o - both print", "give --apply a file to write to")
    if out is not None:
        check_output(out)
    run, also = RunDirectory(path), tuple(calib_also or ())
    chosen = choose_blocks(run, tuple(blocks or ()))
    if apply is not None:
        check_applies(run, chosen, also, apply)
    found = _read_or_measure(run, chosen, windows, also, model)
    text = [each.to_json() for each in found]
    if as_json:
        write_output(STDOUT, json.dumps(text, indent=2, ensure_ascii=False) + "\n")
    elif out != STDOUT:
        console = PlainConsole(width=None if sys.stdout.isatty() else 140, highlight=False)
        for each in found:
            show_probe(each, console)
    if apply is not None:
        _apply(run, found, apply, out, quiet=as_json)


def _read_or_measure(
    run: "RunDirectory",
    blocks: tuple[int, ...],
    windows: int | None,
    also: tuple[str, ...],
    model: str | None,
) -> list["BlockProbe"]:
    """The answers, from where they are kept if all are."""
    from awqscope.diagnose.studies.probes.asked import ask, read_probe

    asked = ask(run, windows, also)
    kept = [read_probe(run, block, asked) for block in blocks]
    there = [each for each in kept if each is not None]
    if len(there) == len(kept):
        return there
    from awqscope.app.terminal.progress import show_progress
    from awqscope.diagnose.studies.probes.probe import probe_blocks
    from awqscope.diagnose.trials.finished import open_run

    begin_computing()
    opened = open_run(run, model)
    warn_of_type(run.read())
    with show_progress() as on_progress:
        return probe_blocks(opened, blocks, windows=windows, calib_also=also, progress=on_progress)


def _apply(
    run: "RunDirectory", found: list["BlockProbe"], name: str, out: Path | None, *, quiet: bool
) -> None:
    """Write the recipe of an alternative, and say what makes its checkpoint."""
    from awqscope.diagnose.studies.probes.applying import apply_alternative
    from awqscope.mixedprec.recipes.recipe import recipe_json

    numbers = "-".join(str(each.block) for each in found)
    to = out or run.path / "recipes" / f"probe-{numbers}-{name}.json"
    recipe = apply_alternative(run, found, name)
    write_output(to, json.dumps(recipe_json(recipe), indent=2, ensure_ascii=False) + "\n")
    if to != STDOUT and not quiet:
        command = ["awqscope", "requantize", str(run.path), "--recipe", str(to)]
        print(f"{to} holds {name}; {shlex.join(command)} --out ./checkpoint --prove makes it")
