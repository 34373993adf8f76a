"""`awqscope tasks`: lm-eval's tasks on a run's models, paired by sample."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awqscope.app.command_line.common import begin_computing, examples, read_devices
from awqscope.app.command_line.options import MovedModelOption, RunArgument
from awqscope.mixedprec.errors import InputError

if TYPE_CHECKING:
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.studies.tasks.answer import Tasks


@examples(
    "awqscope tasks reports/my-model --tasks hellaswag,arc_easy --limit 500",
    "awqscope tasks reports/my-model --tasks my_task --include-path ./my-tasks",
    "awqscope tasks reports/my-model --results reference=./a --results mixed=./b",
)
def tasks(
    path: RunArgument,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            metavar="NAMES",
            help="Tasks or groups of lm-eval, with commas between them; repeatable.",
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=DIR",
            help="Read what lm-eval wrote with --log_samples of a model; repeatable.",
        ),
    ] = None,
    include_path: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Further task files. Python in them is run. Repeatable.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Documents of each task. [default: all]"),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Examples before each. [default: the task's]"),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Tokens that are read at most. [default: the run's --seq-len]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Requests at a time. [default: 8]"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: auto]"),
    ] = None,
    model: MovedModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Give a run's models tasks of lm-eval, and pair them by sample.

    Reference, uniform and mixed are asked the same, and each task says which samples turned, how
    much accuracy that is, and how surely (McNemar's exact test; Holm for several). The gate takes
    limits on them. The answer is kept in RUN/studies/: a task that is finished is not run again.
    Without --tasks and --results, what is kept is shown.
    """
    from awqscope.app.terminal.console import PlainConsole
    from awqscope.app.terminal.studies.tasks import show_tasks, write_json
    from awqscope.diagnose.runs.directory import RunDirectory, reads_run
    from awqscope.diagnose.studies.tasks.answer import find_kept_tasks, list_stale
    from awqscope.diagnose.studies.tasks.harness import Harness, check_running, name_version

    parts = (name.strip() for text in names or () for name in text.split(","))
    wanted = tuple(name for name in parts if name)
    run = RunDirectory(path)
    running = {
        "--include-path": include_path,
        "--limit": limit,
        "--num-fewshot": num_fewshot,
        "--max-length": max_length,
        "--batch-size": batch_size,
        "--device": device,
        "--model": model,
    }
    check_running(running, has_results=bool(results), has_names=bool(wanted))
    if results:
        found = _read_results(run, results, wanted)
    elif wanted:
        from awqscope.app.terminal.progress import show_progress
        from awqscope.diagnose.studies.tasks.measure import run_tasks
        from awqscope.diagnose.trials.finished import open_run

        name_version()
        begin_computing()
        opened = open_run(run, model)
        harness = Harness(
            tuple(include_path or ()),
            limit,
            num_fewshot,
            max_length or run.read_searched().ppl_definition.seq_len,
            batch_size or Harness.batch_size,
        )
        with show_progress() as on_progress:
            found = run_tasks(
                opened, wanted, harness, on_progress, device=read_devices(device or "auto")[0]
            )
    else:
        found = find_kept_tasks(run)
    with reads_run(path):
        stale = list_stale(found, run)
        if as_json:
            print(
                json.dumps(write_json(found, stale), indent=2, ensure_ascii=False, allow_nan=False)
            )
            return
        width = None if sys.stdout.isatty() else 150
        show_tasks(found, PlainConsole(width=width, highlight=False), stale)


def _read_results(run: "RunDirectory", results: list[str], wanted: tuple[str, ...]) -> "Tasks":
    from awqscope.diagnose.studies.tasks.measure import read_finished_results

    given: dict[str, Path] = {}
    for text in results:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise InputError(f"--results {text} names no folder", "give it like mixed=./results")
        if name in given:
            raise InputError(f"two folders are of {name}", "give one of them")
        given[name] = Path(folder)
    return read_finished_results(run, given, wanted)
