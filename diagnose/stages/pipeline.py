"""A run from MODEL to checkpoint/, stage by stage, each leaving its result in the run directory.

    search      the AWQ search of every block at both widths            awq/
    sweep       isolated, cumulative, restored                          blocks, tokens
                what flows, and what is rounded                         activations, weights
    estimate    every unit at both widths                               units
    exact       exact units; promotions inside flagged blocks           units, promotions
    recipe      the flagged recipe                                      recipe.json
    requantize  the mixed checkpoint                                    checkpoint/
    proof       the checkpoint measured from disk in a fresh process    proof.json, tokens

A stage that is done is not repeated, nor is a task of the first four (a block, a chunk of windows).
A run killed anywhere and started again with the same options ends with the same numbers.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from awqscope.diagnose.entries.part import Part
from awqscope.diagnose.entries.plan import MemoryPlan
from awqscope.diagnose.entries.stages import Fault
from awqscope.diagnose.inputs.load import (
    describe,
    load_inputs,
    note_weights,
    open_asked,
    settle_groups,
)
from awqscope.diagnose.inputs.sources import check_specs
from awqscope.diagnose.machine.memory import (
    device_peak_bytes,
    forget_peak,
    peak_bytes,
    return_freed_tensors,
)
from awqscope.diagnose.machine.precision import settle_precision
from awqscope.diagnose.machine.signals import asked_to_end
from awqscope.diagnose.machine.tasks import (
    HERE,
    Placement,
    ThisProcess,
    Workers,
    computing_with,
)
from awqscope.diagnose.machine.threads import write_threads
from awqscope.diagnose.machine.workers import count_sharing, open_workers, settle_threads
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.plan.room import plan_work
from awqscope.diagnose.runs.directory import STAGES, OnProgress, ProgressLog, RunDirectory, now
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.diagnose.runs.spec import AnySpec, RunSpec
from awqscope.diagnose.stages.estimate import estimate_stage
from awqscope.diagnose.stages.exact import exact_stage
from awqscope.diagnose.stages.repair import proof_stage, recipe_stage, requantize_stage
from awqscope.diagnose.stages.resume import repeat_damaged
from awqscope.diagnose.stages.search import search_stage
from awqscope.diagnose.stages.sweep import sweep_stage
from awqscope.diagnose.sweep.branches import block_branches
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.shortage import explain_shortage
from awqscope.mixedprec.models.source import SourceModel

MEASURING = {
    "search": search_stage,
    "sweep": sweep_stage,
    "estimate": estimate_stage,
    "exact": exact_stage,
}
REPAIRING = {
    "recipe": recipe_stage,
    "requantize": requantize_stage,
    "proof": proof_stage,
}


def _skip_reason(stage: str, spec: RunSpec) -> str | None:
    """Why a stage does not apply to this spec, if it does not."""
    return spec.no_checkpoint if stage in ("requantize", "proof") else None


# What is said of the inputs and decides no number: other files beside a model's weights, and counts
# that earlier versions made otherwise.
FREE = {"left_aside", "parameters", "quantized_before", "unit_weights"}
# What a run computes with.
MEANS = {"versions": "the set of installed libraries", "device": "the kind of device"}

OnPlan = Callable[[MemoryPlan], None]
OnNote = Callable[[str], None]
Action = Callable[[Setting], None]


@dataclass(frozen=True)
class Work:
    """The work that a spec asks for, once its inputs are read. description: the first record.
    stages: by name, what carries each out, or why it does not apply. plan: makes the plan for a
    directory and workers, given windows a chunk by stage where they are decided. notes: what a user
    should know of the inputs before it begins."""

    description: AnyRecord
    stages: Mapping[str, Action | str]
    plan: Callable[[Path, Workers, Mapping[str, int]], MemoryPlan]
    notes: tuple[str, ...] = ()


def prepare_run(
    spec: RunSpec, model: SourceModel | None = None, notes: tuple[str, ...] = ()
) -> Work:
    """The work of `awqscope run`. model: what `spec` names, where it is open already. notes: what
    is known of it that a user should know."""
    inputs = load_inputs(spec, model)
    actions = MEASURING | REPAIRING
    stages = {
        name: _skip_reason(name, spec) or partial(actions[name], spec, inputs) for name in STAGES
    }
    plan = partial(
        plan_work,
        inputs.model,
        inputs.windows,
        [name for name, action in stages.items() if not isinstance(action, str)],
        budget=spec.max_memory,
        most_windows=spec.chunk_windows,
        calib=inputs.search_windows,
        exact=spec.is_exact,
        sweep=block_branches(inputs.model, spec.bits, frozenset(spec.keep_fp16)),
        sampled=len(list_sampled(spec, inputs.windows)),
        verified=spec.verify_units,
        precision=spec.precision,
    )
    return Work(describe(spec, inputs), stages, plan, (*notes, *note_weights(inputs.model)))


def settle(spec: RunSpec) -> tuple[RunSpec, Callable[[], Work]]:
    """A spec in which everything is decided that the model decides, and what prepares its work."""
    # First, so that a mistyped name is not reported as an option that differs from the run there.
    check_specs((spec.calib, *spec.valid))
    if spec.group_size is not None:
        return spec, partial(prepare_run, spec)
    model = open_asked(spec)
    settled, notes = settle_groups(spec, model)
    return settled, partial(prepare_run, settled, model, notes)


def run_pipeline(
    spec: RunSpec,
    out: Path,
    on_progress: OnProgress,
    placement: Placement = HERE,
    on_plan: OnPlan = lambda plan: None,
    on_note: OnNote = lambda note: None,
) -> RunDirectory:
    """Carry out `spec` in the directory `out`, continuing where an earlier process stopped.

    on_progress(stage, done, total). placement: where its tasks are carried out. on_plan: told the
    plan before it starts; on_note: before that, what a user should know of the inputs, and with how
    many threads it computes.
    InputError for unusable input, another run in `out`, a process that already works on it, or a
    full disk. Errors of the stages are recorded in run.json too.
    """
    settled, prepare = settle(settle_precision(spec, RunDirectory(out), placement))
    texts = " or ".join(spec.valid)
    named = {"source": spec.model, "calibration": spec.calib, "ppl_definition": texts}
    return conduct(settled, prepare, named, out, on_progress, placement, on_plan, on_note)


def plan_pipeline(
    spec: RunSpec,
    out: Path,
    placement: Placement = HERE,
    on_note: OnNote = lambda note: None,
) -> MemoryPlan:
    """The plan by which `run_pipeline` would begin or continue in `out`. on_note: told what a user
    should know of the inputs, and the threads. InputError for unusable input, and for another run
    in `out`."""
    settled, prepare = settle(settle_precision(spec, RunDirectory(out), placement))
    return foresee(settled, prepare, out, placement, on_note)


def foresee(
    spec: AnySpec,
    prepare: Callable[[], Work],
    out: Path,
    placement: Placement,
    on_note: OnNote = lambda note: None,
) -> MemoryPlan:
    """The plan by which `conduct` would begin or continue in `out`. on_note: told what a user
    should know of the inputs, and the threads. InputError for unusable input, and where `out` holds
    anything but this run."""
    return_freed_tensors()
    run = RunDirectory(out)
    chunks = _read_chunks(run, spec)
    threads = settle_threads(run, placement)
    work = prepare()
    for note in (*work.notes, write_threads(threads, count_sharing(placement))):
        on_note(note)
    with open_workers(placement, run, threads) as workers:
        return work.plan(out, workers, chunks)


def _read_chunks(run: RunDirectory, spec: AnySpec) -> Mapping[str, int]:
    """Windows a chunk by stage where an earlier start of the run decided them. InputError where the
    directory is another run's, or no run's."""
    if not run.exists():
        run.check_free()
        return {}
    run.check_spec(spec)
    return run.read().chunks


def conduct(
    spec: AnySpec,
    prepare: Callable[[], Work],
    named: dict[str, str],
    out: Path,
    on_progress: OnProgress,
    placement: Placement,
    on_plan: OnPlan,
    on_note: OnNote,
) -> RunDirectory:
    """Carry out a spec of any kind; `prepare` makes its work. named: the inputs, entries of the
    description, that must not change between two attempts, and what a user calls them. The other
    arguments and the errors are those of `run_pipeline`."""
    return_freed_tensors()
    run = RunDirectory(out)
    chunks = _read_chunks(run, spec)
    # Now: preparing is work too, which the load would count.
    threads = settle_threads(run, placement)
    work = prepare()
    if run.exists() and run.read().state == "done":
        with run.lock():
            _check_unchanged(run, work.description, named)
        return run
    # The plan depends on the workers: they are opened first, and closed before the proof.
    with computing_with(threads.alone), contextlib.ExitStack() as opened:
        workers = opened.enter_context(open_workers(placement, run, threads))
        plan = work.plan(out, workers, chunks)
        # Another kind of device rounds otherwise.
        description = work.description.changed(device=workers.kind, threads=threads)
        with run.lock():
            if not run.exists():
                run.create(description)
            done = run.read().state == "done"
            _check_unchanged(run, description, named if done else {**named, **MEANS})
            if not done:
                for note in (*work.notes, write_threads(threads, count_sharing(placement))):
                    on_note(note)
                on_plan(plan)
                # Earlier versions did not say with how many threads they began.
                run.update(memory_plan=plan, threads=run.read().threads or threads)
                setting = Setting(run, workers, plan, ProgressLog(run, on_progress))
                _carry_out(work, setting, opened.close)
    return run


def _check_unchanged(run: RunDirectory, description: AnyRecord, parts: Mapping[str, str]) -> None:
    """InputError for a part of the description, named by what a user calls it, that has changed. A
    finished run stays what it is; an unfinished one must not mix what MEANS compute."""
    begun = run.read()
    for part, what in parts.items():
        there, here = getattr(begun, part), getattr(description, part)
        # Earlier versions did not say what computed.
        if there is not None and _binding(there) != _binding(here):
            raise InputError(
                f"{what} has changed since {run.path} was begun", "choose another --out"
            )


def _binding(part: Any) -> Any:
    """What two attempts must agree on in a part of the description."""
    return part.model_dump(exclude=FREE) if isinstance(part, Part) else part


def _carry_out(work: Work, setting: Setting, close_workers: Callable[[], None]) -> None:
    run = setting.run
    run.update(state="running", error=None)
    repeat_damaged(run)
    try:
        _carry_out_stages(MEASURING, work, setting)
        close_workers()
        _carry_out_stages(REPAIRING, work, replace(setting, workers=ThisProcess()))
    except Exception as error:
        if asked_to_end.is_set():
            raise KeyboardInterrupt from error
        if isinstance(error, InputError):
            _record_failure(run, Fault(message=error.what, remedy=error.remedy))
            raise
        told = explain_shortage(error)
        if told is not None:
            _record_failure(run, Fault(message=told.what, remedy=told.remedy))
            raise told from error
        _record_failure(run, Fault(message=f"{type(error).__name__}: {error}"))
        raise
    shutil.rmtree(run.work, ignore_errors=True)
    run.update(state="done")


def _carry_out_stages(stages: Iterable[str], work: Work, setting: Setting) -> None:
    run = setting.run
    for stage in stages:
        if run.is_done(stage):
            continue
        action = work.stages[stage]
        if isinstance(action, str):
            run.mark(stage, "skipped", reason=action)
            continue
        run.mark(stage, "running", started=now())
        began = time.monotonic()
        forget_peak()
        action(setting)
        run.mark(
            stage,
            "done",
            finished=now(),
            seconds=round(time.monotonic() - began, 2),
            peak_bytes=peak_bytes(),
            device_peak_bytes=device_peak_bytes(),
        )


def _record_failure(run: RunDirectory, error: Fault) -> None:
    """Write the reason to run.json; on a full disk the record stays as it is."""
    try:
        run.update(state="failed", error=error)
    except (InputError, MemoryError, OSError):
        sys.stderr.write("the reason could not be written to run.json\n")
