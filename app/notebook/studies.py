"""Questions asked of a finished run, as functions: the studies of `awqscope why`, `probe`,
`calibrate`, `alternatives`, `activations`, `weights` and `tasks`.

Each takes a run, or its directory, and gives the answer as an object that `to_json` writes. The
answer is kept beside the run and not measured again, until another question of the same study takes
its place; `why`, `probe` and `weights` then read it without the model. To be measured it takes the
run's model, `model` where that has moved. `progress` is told what is done, how many steps of it
are, and how many there are. InputError for a run that is not finished, for a comparison, for a
model that is gone or another, and for what makes no sense.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from awqscope.app.notebook.run import Run, find_run

if TYPE_CHECKING:
    from awqscope.diagnose.studies.alternatives.answer import Alternatives
    from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
    from awqscope.diagnose.studies.causes.answer import Causes
    from awqscope.diagnose.studies.int8_inputs.answer import Activations
    from awqscope.diagnose.studies.probes.answer import BlockProbe
    from awqscope.diagnose.studies.tasks.answer import Tasks
    from awqscope.diagnose.studies.weights.answer import BlockWeights
    from awqscope.diagnose.trials.finished import OpenedRun

Progress = Callable[[str, int, int], None]
AnyRun = Run | Path | str
AnyText = TypeVar("AnyText", bound=Path | str)


def tell_nobody(stage: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def as_several(given: AnyText | Collection[AnyText]) -> tuple[AnyText, ...]:
    """What may be given one or several times."""
    return (given,) if isinstance(given, str | Path) else tuple(given)


def _open(run: AnyRun, model: str | None) -> "OpenedRun":
    from awqscope.diagnose.trials.finished import open_run

    return open_run(find_run(run).directory, model)


def why(
    run: AnyRun,
    block: int,
    *,
    windows: int | None = None,
    model: str | None = None,
    progress: Progress = tell_nobody,
) -> "Causes":
    """Why a block is hurt: by which of AWQ's steps, in which linear, head and channel. windows: of
    the run's validation text to look at; None for some 2,000 tokens, but at least 4 windows."""
    from awqscope.diagnose.studies.causes.find import find_causes, read_causes

    kept = read_causes(find_run(run).directory, block, windows)
    return kept or find_causes(_open(run, model), block, windows, progress)


def probe(
    run: AnyRun,
    *blocks: int,
    windows: int | None = None,
    calib_also: str | Sequence[str] = (),
    model: str | None = None,
    progress: Progress = tell_nobody,
) -> "list[BlockProbe]":
    """What would help blocks, and for how many bytes; by default the flagged ones, else the worst.
    windows: of the run's text to measure on, None for as many as are done in a minute or two.
    calib_also: further texts to try calibrating on."""
    from awqscope.diagnose.studies.probes.asked import ask, choose_blocks, read_probe

    directory, also = find_run(run).directory, as_several(calib_also)
    chosen, asked = choose_blocks(directory, blocks), ask(directory, windows, also)
    kept = [read_probe(directory, block, asked) for block in chosen]
    there = [each for each in kept if each is not None]
    if len(there) == len(chosen):
        return there
    from awqscope.diagnose.studies.probes.probe import probe_blocks

    opened = _open(run, model)
    return probe_blocks(opened, chosen, windows=windows, calib_also=also, progress=progress)


def calibrate(
    run: AnyRun,
    *,
    counts: Sequence[int] | None = None,
    draws: int | None = None,
    calib_also: str | Sequence[str] = (),
    valid_also: str | Sequence[str] = (),
    search: str | None = None,
    windows: int | None = None,
    model: str | None = None,
    device: str = "cpu",
    progress: Progress = tell_nobody,
) -> "CalibrationAdvice":
    """Whether more calibration windows, or another text, would do less damage. counts: numbers of
    calibration windows to search; draws: other sets of as many windows as the run's search read;
    calib_also, valid_also: further texts to calibrate and to measure on; search: `fast` or `exact`,
    None for the run's own; windows: validation windows to measure on; device: what computes:
    `auto`, `cpu`, or `cuda:N`."""
    import torch

    from awqscope.app.command_line.common import read_devices
    from awqscope.diagnose.studies.calibration.advise import advise_calibration
    from awqscope.diagnose.studies.calibration.asked import COUNTS, DRAWS, Asked

    asked = Asked(
        counts=COUNTS if counts is None else tuple(counts),
        draws=DRAWS if draws is None else draws,
        calib_also=as_several(calib_also),
        valid_also=as_several(valid_also),
        search=search,
        windows=windows,
    )
    where = torch.device(read_devices(device)[0])
    return advise_calibration(_open(run, model), asked, progress, device=where)


def alternatives(
    run: AnyRun,
    *,
    only: str | Collection[str] = (),
    added: Mapping[str, str] = {},
    by_block: bool = False,
    model: str | None = None,
    progress: Progress = tell_nobody,
) -> "Alternatives":
    """Other ways to quantize the run's model, measured on its windows. only: these and what is
    added alone; added: name -> a checkpoint that another tool made; by_block: each block alone
    too, which takes long."""
    from awqscope.diagnose.studies.alternatives.compare import compare_alternatives

    opened, names = _open(run, model), as_several(only)
    return compare_alternatives(opened, progress, only=names, added=added, by_block=by_block)


def activations(
    run: AnyRun,
    *methods: str,
    windows: int | None = None,
    model: str | None = None,
    progress: Progress = tell_nobody,
) -> "Activations":
    """Which blocks refuse int8 activations, by `int8` unless other methods are named: `llm.int8`,
    `smoothquant`. windows: of those that the run measured its blocks on, None for all."""
    from awqscope.diagnose.studies.int8_inputs.answer import INT8
    from awqscope.diagnose.studies.int8_inputs.measure import measure_activations

    return measure_activations(_open(run, model), methods or (INT8,), progress, windows=windows)


def weights(
    run: AnyRun,
    unit: str | int,
    *,
    linear: str | None = None,
    model: str | None = None,
    progress: Progress = tell_nobody,
) -> "BlockWeights":
    """What is stored of a unit's weights beside their 16 bits: scales, clips, codes and the groups
    that are rounded worst. unit: such as `5.qkv`, or a block. linear: only this one, by its name or
    the end of it."""
    from awqscope.diagnose.studies.weights.asked import choose_linears, read_asked
    from awqscope.diagnose.studies.weights.look import look_at_weights, read_weights

    asked = read_asked(str(unit))
    found = read_weights(find_run(run).directory, asked.block)
    found = found or look_at_weights(_open(run, model), asked.block, progress)
    return choose_linears(found, asked, linear)


def tasks(
    run: AnyRun,
    *names: str,
    results: Mapping[str, Path | str] = {},
    include_path: Path | str | Sequence[Path | str] = (),
    limit: int | None = None,
    num_fewshot: int | None = None,
    max_length: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    model: str | None = None,
    progress: Progress = tell_nobody,
) -> "Tasks":
    """Tasks of lm-eval, by name, on the run's models; without any, those that are kept. Of a model
    and any pair of them `awqscope.diagnose.studies.tasks.pairing` says what turned, and how surely.

    results: model -> the folder of finished results, which are read instead of running the tasks.
    include_path: folders with further task files. limit: documents of each task. num_fewshot:
    examples before each document, None for as many as the task says. max_length: tokens that the
    model reads at most, by default the run's windows. batch_size: requests at a time, by default 8.
    device: what computes, by default `auto`. InputError for these where no tasks are run.
    """
    from awqscope.diagnose.studies.tasks.harness import Harness, check_running

    directory, folders = find_run(run).directory, as_several(include_path)
    running = {
        "include_path": folders or None,
        "limit": limit,
        "num_fewshot": num_fewshot,
        "max_length": max_length,
        "batch_size": batch_size,
        "device": device,
        "model": model,
    }
    check_running(running, has_results=bool(results), has_names=bool(names))
    if results:
        from awqscope.diagnose.studies.tasks.measure import read_finished_results

        given = {name: Path(folder) for name, folder in results.items()}
        return read_finished_results(directory, given, names)
    if not names:
        from awqscope.diagnose.studies.tasks.answer import find_kept_tasks

        return find_kept_tasks(directory)
    from awqscope.app.command_line.common import read_devices
    from awqscope.diagnose.studies.tasks.measure import run_tasks

    usual = directory.read_searched().ppl_definition.seq_len
    harness = Harness(
        tuple(Path(folder) for folder in folders),
        limit,
        num_fewshot,
        usual if max_length is None else max_length,
        Harness.batch_size if batch_size is None else batch_size,
    )
    where = read_devices(device or "auto")[0]
    return run_tasks(_open(run, model), names, harness, progress, device=where)
