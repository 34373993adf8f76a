"""Sweeps chunk by chunk: each chunk's result is a file in work/ until the run is done."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.inside.activations import ActivationLog
from awqscope.diagnose.inside.weights import WeightLog
from awqscope.diagnose.machine.precision import InPrecision
from awqscope.diagnose.machine.tasks import CHUNKS_A_WORKER, OnStep, Task, Workers, list_missing
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.plan.demand import TRUNKS, count_scored
from awqscope.diagnose.plan.room import Room, read_shape
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.diagnose.sweep.branches import (
    Branch,
    Sweep,
    Sweepable,
    follows_uniform,
    share_streams,
)
from awqscope.diagnose.sweep.likely_rows import HeadLog
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.ranges import RangeLog
from awqscope.mixedprec.models.served import served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import batch_size, list_slices


class Options(Protocol):
    """What a sweep is asked, by a run or a comparison."""

    @property
    def seed(self) -> int: ...

    @property
    def thresholds(self) -> Thresholds: ...

    @property
    def is_sampled(self) -> bool: ...

    @property
    def sweep_windows(self) -> int | None: ...


class Subject(Protocol):
    """What a sweep works on."""

    @property
    def model(self) -> SourceModel: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def windows(self) -> Tensor: ...


def build_sweep(
    spec: RunSpec, model: SourceModel, run: RunDirectory, branches: tuple[Branch, ...]
) -> Sweep:
    """What a run sweeps: the uniform model of its spec, as stored, and `branches`."""
    return Sweep(
        spec.bits,
        (spec.bits, spec.rescue_bits),
        frozenset(spec.keep_fp16),
        run.searches,
        branches,
        served_outside(model),
    )


def count_work(
    model: SourceModel, sweep: Sweepable, length: int, trunks: int = TRUNKS
) -> tuple[int, ...]:
    """The work of a sweep up to each block, and up to the end of the head, in forwards of a block.

    length: tokens of a window. trunks: how many there are. A stream goes through every block from
    the one that its branch begins at; the head takes the streams at its end."""
    shape = read_shape(model)
    unique = {each for each in share_streams(sweep, model).values() if isinstance(each, Branch)}
    begins = [branch.block + follows_uniform(sweep, model, branch) for branch in unique]
    alive = [trunks + sum(begin <= number for begin in begins) for number in range(model.blocks)]
    head = shape.count_head_flops() / shape.count_token_flops(length)
    scored = count_scored(shape, TRUNKS + len(unique)) * head
    return (*itertools.accumulate(alive), sum(alive) + max(1, round(scored)))


def choose_size(count: int, length: int, most: int, workers: int) -> int:
    """How many of `count` windows make a chunk: at most `most`, and few enough that every worker of
    several has CHUNKS_A_WORKER of them. A chunk is all windows or whole batches, at least one: a
    window is then in a batch with the same other windows whatever the chunk."""
    batch = batch_size(length)
    share = most if workers == 1 else math.ceil(count / (workers * CHUNKS_A_WORKER))
    size = min(most, share)
    return count if size >= count else max(1, size // batch) * batch


def fix_chunks(at: Setting, name: str, windows: Tensor, most: int | None = None) -> list[slice]:
    """The chunks of `windows` [n, length] that the stage, or the part of one, `name` goes through,
    fixed in run.json when they are first asked for. most: windows a chunk; None for as many as are
    planned."""
    sizes = dict(at.run.read().chunks)
    if name not in sizes:
        count, length = windows.shape
        most = most or at.plan.stage(name).chunk_windows
        sizes[name] = choose_size(count, length, most, at.workers.count)
        at.run.update(chunks=sizes)
    return list_slices(len(windows), sizes[name])


def finish_tasks(
    tasks: Sequence[Task], run: RunDirectory, workers: Workers, on_step: OnStep
) -> None:
    """Carry out the tasks of which a file is missing or damaged. on_step: told the steps of all
    tasks that are done."""
    there = {name for task in tasks for name in task.leaves if run.holds(name)}
    missing = list_missing(tasks, there)
    before = sum(task.steps for task in tasks) - sum(task.steps for task in missing)
    workers.run(missing, lambda done: on_step(before + done))


@dataclass(frozen=True, kw_only=True)
class _ChunkSweep:
    """The work of sweeping one chunk: its result is written to a file of the run."""

    run: RunDirectory
    file: str
    model: SourceModel
    # The chunk's windows [n, length].
    windows: Tensor
    sweep: Sweepable
    # From the scores by model to the arrays that are kept of them.
    reduce: Callable[[dict[str, TokenScores]], dict[str, Tensor]]
    # The size of a weight group for a number of inputs, where what flows is watched too.
    group: Callable[[int], int] | None
    with_uniform: bool
    # Whether weights are watched too: they are the same for every chunk.
    is_first: bool
    # The work of all blocks up to each, and of the head as the last, in block-forwards.
    work: tuple[int, ...]
    room: Room

    def __call__(self, device: torch.device, on_step: OnStep) -> None:
        group = self.group
        activations, weights = ActivationLog(), WeightLog(group or int)
        ranges = RangeLog(len(self.windows)) if group else None
        log = HeadLog()
        blocks, head = self.work[-2], self.work[-1] - self.work[-2]
        scores = run_sweep(
            self.model,
            self.windows,
            self.sweep,
            observe=activations.observe if group else None,
            inspect=weights.observe if group and self.is_first else None,
            ranges=ranges,
            log=log,
            with_uniform=self.with_uniform,
            on_block=lambda done: on_step(self.work[done - 1] * len(self.windows)),
            on_head=lambda done: on_step(blocks * len(self.windows) + head * done),
            device=device,
            space=self.room.open(),
        )
        logs: dict[str, ActivationLog | WeightLog | RangeLog | HeadLog | None]
        logs = {"activations": activations, "weights": weights, "ranges": ranges, "head": log}
        state = {
            f"{name}.{key}": values
            for name, kept in logs.items()
            if kept is not None
            for key, values in kept.state().items()
        }
        self.run.write_arrays(self.file, self.reduce(scores) | state)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A sweep over some windows, chunk by chunk.

    name: of its files, and of the size of its chunks. model, windows [n, length], sweep: what is
    swept. reduce: from the scores by model to the arrays that are kept of them. group: gives the
    size of the weight groups for a number of inputs, where `activations.…` and `ranges.…` of every
    chunk are kept too; with_weights: whether `weights.…` are, which are the same for all, of the
    first. with_uniform: whether the uniform model is scored too. most: windows a chunk, None for as
    many as the stage of this name has by the plan. `group`, `reduce` and the sweep are pickled on
    their way to other processes, so they must be functions of modules.
    """

    name: str
    model: SourceModel
    windows: Tensor
    sweep: Sweepable
    reduce: Callable[[dict[str, TokenScores]], dict[str, Tensor]]
    group: Callable[[int], int] | None = None
    with_weights: bool = False
    with_uniform: bool = True
    most: int | None = None


def list_tasks(each: Pass, at: Setting, room: Room) -> list[Task]:
    """A task a chunk."""
    trunks = TRUNKS if each.with_uniform else 1
    work_done = count_work(each.model, each.sweep, each.windows.shape[1], trunks)
    tasks = []
    for number, chunk in enumerate(fix_chunks(at, each.name, each.windows, each.most)):
        file = f"work/{each.name}-{number:04d}.safetensors"
        work = _ChunkSweep(
            run=at.run,
            file=file,
            model=each.model,
            # A copy: a view would take the whole text along.
            windows=each.windows[chunk].clone(),
            sweep=each.sweep,
            reduce=each.reduce,
            group=each.group,
            with_uniform=each.with_uniform,
            is_first=each.with_weights and number == 0,
            work=work_done,
            room=room,
        )
        steps = work_done[-1] * (chunk.stop - chunk.start)
        computing = InPrecision(work, at.precision)
        tasks.append(Task(f"chunk {number} of the {each.name}", (file,), steps, computing))
    return tasks


class Passes:
    """The passes of a stage, whose chunks' results are kept in work/ until the run is done."""

    def __init__(self, stage: str, at: Setting):
        self._stage, self._at, self._done = stage, at, 0

    def carry_out(self, *passes: Pass) -> list[list[dict[str, Tensor]]]:
        """What the chunks of each pass keep. The chunks of all of them are worked on together."""
        at, room = self._at, self._at.room_for(self._stage)
        lists = [list_tasks(each, at, room) for each in passes]
        tasks = [task for some in lists for task in some]
        before, total = self._done, self._done + sum(task.steps for task in tasks)
        finish_tasks(
            tasks,
            at.run,
            at.workers,
            lambda done: at.progress(self._stage, before + done, total),
        )
        self._done = total
        return [[read_tensors(at.run, task.leaves[0]) for task in some] for some in lists]


def read_tensors(run: RunDirectory, name: str) -> dict[str, Tensor]:
    """A safetensors file of a run as tensors."""
    return {key: torch.from_numpy(array) for key, array in run.read_arrays(name).items()}
