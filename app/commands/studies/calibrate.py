"""`awqscope calibrate`: whether more calibration windows, or another text, would do less damage."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from awqscope.app.command_line.common import STDOUT, begin_computing, examples, write_output
from awqscope.app.command_line.options import MovedModelOption, RunArgument
from awqscope.diagnose.studies.calibration.asked import (
    COUNTS,
    DRAWS,
    MOST_DRAWS,
    Asked,
    parse_counts,
)

if TYPE_CHECKING:
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.calibration.advise import Prepared
    from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice


@examples(
    "awqscope calibrate reports/my-model",
    "awqscope calibrate reports/my-model --calib-also code.txt",
    "awqscope calibrate reports/my-model --counts 16,64 --draws 1 --plan",
)
def calibrate(
    path: RunArgument,
    counts: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Numbers of calibration windows to search, those that the text has.",
        ),
    ] = ",".join(map(str, COUNTS)),
    draws: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Random sets of as many other windows as the run's search read; "
            f"0 to {MOST_DRAWS}.",
        ),
    ] = DRAWS,
    calib_also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Another calibration text to try, as --calib takes it; repeatable.",
        ),
    ] = None,
    valid_also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="Another text to measure on, as --valid takes it; repeatable."
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="fast or exact. [default: as the run was searched]"),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Validation windows to measure on. [default: 16,384 tokens of the run's, at least "
            "8 windows]",
        ),
    ] = None,
    model: MovedModelOption = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="What computes: auto, cpu, or cuda:N.")
    ] = "auto",
    plan: Annotated[bool, typer.Option("--plan", help="Say what it takes, and stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer, or the plan, as JSON.")
    ] = False,
) -> None:
    """Say whether more calibration windows, or another text, would do less damage.

    Searches halves of the windows that a finished run's search read, other draws of as many, more
    and fewer of them, and other texts; then measures all the models that these make on the run's
    validation windows, in one pass. The answer stays in RUN/studies/ until other options are asked
    for; what was searched is found again then.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.studies.calibration import show_calibration
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.calibration.asked import find_kept

    asked = Asked(
        counts=parse_counts(counts),
        draws=draws,
        calib_also=tuple(calib_also or ()),
        valid_also=tuple(valid_also or ()),
        search=search,
        windows=windows,
    )
    run = RunDirectory(path)
    found = find_kept(run, asked)
    if plan:
        _print_plan(run, asked, model, device, is_kept=found is not None, as_json=as_json)
        return
    if found is None:
        found = _measure(run, asked, model, device)
    if as_json:
        text = json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_output(STDOUT, text + "\n")
        return
    width = None if sys.stdout.isatty() else 160
    show_calibration(found, PlainConsole(width=width, highlight=False))


def _print_plan(
    run: "RunDirectory",
    asked: Asked,
    model: str | None,
    device: str,
    *,
    is_kept: bool,
    as_json: bool,
) -> None:
    """What the answer takes, which is nothing where it is kept."""
    from awqscope.app.command_line.common import read_devices
    from awqscope.app.terminal.studies.calibration import write_plan
    from awqscope.diagnose.studies.calibration.planning import NOTHING

    read_devices(device)
    found = NOTHING if is_kept else _prepare(run, asked, model).plan()
    said = json.dumps(asdict(found), indent=2) if as_json else write_plan(found)
    write_output(STDOUT, said + "\n")


def _measure(
    run: "RunDirectory", asked: Asked, model: str | None, device: str
) -> "CalibrationAdvice":
    """The answer, measured."""
    import torch

    from awqscope.app.command_line.common import read_devices
    from awqscope.app.terminal.progress import show_note, show_progress
    from awqscope.app.terminal.studies.calibration import write_plan
    from awqscope.diagnose.studies.calibration.advise import carry_out

    where = torch.device(read_devices(device)[0])
    prepared = _prepare(run, asked, model)
    with show_progress() as on_progress:
        return carry_out(
            prepared,
            on_progress,
            on_plan=lambda plan: show_note(write_plan(plan)),
            device=where,
        )


def _prepare(run: "RunDirectory", asked: Asked, model: str | None) -> "Prepared":
    """The study of the opened run."""
    from awqscope.diagnose.machine.memory import return_freed_tensors
    from awqscope.diagnose.studies.calibration.advise import prepare_study
    from awqscope.diagnose.trials.finished import open_run

    return_freed_tensors()
    begin_computing()
    return prepare_study(open_run(run, model), asked)
