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
from awqscope.diagnose.plan.demand import TRUNKS, count_scored
from awqscope.diagnose.plan.room import Room, read_shape
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.setting import Setting
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.diagnose.sweep.branches import Branch, Sweep, Sweepable, share_streams
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


def count_work(model: SourceModel, sweep: Sweepable, length: int) -> tuple[int, ...]:
    """The work of a sweep up to each block, and up to the end of the head, in forwards of a block.

    length: tokens of a window. A stream goes through every block from the one that its branch
    begins at; the head takes the streams at its end."""
    shape = read_shape(model)
    unique = {each for each in share_streams(sweep, model).values() if isinstance(each, Branch)}
    alive = [
        TRUNKS + sum(branch.block <= number for branch in unique) for number in range(model.blocks)
    ]
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


def fix_chunks(at: Setting, name: str, windows: Tensor) -> list[slice]:
    """The chunks of `windows` [n, length] of the stage `name`, fixed in run.json when they are
    first asked for."""
    sizes = dict(at.run.read().chunks)
    if name not in sizes:
        count, length = windows.shape
        most = at.plan.stage(name).chunk_windows
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
    # Whether weights are watched too: they are the same for every chunk.
    is_first: bool
    # The work of all blocks up to each, and of the head as the last, in block-forwards.
    work: tuple[int, ...]
    room: Room

    def __call__(self, device: torch.device, on_step: OnStep) -> None:
        group = self.group
        activations, weights = ActivationLog(), WeightLog(group or int)
        ranges = RangeLog(len(self.windows)) if group else None
        head = HeadLog()
        scores = run_sweep(
            self.model,
            self.windows,
            self.sweep,
            observe=activations.observe if group else None,
            inspect=weights.observe if group and self.is_first else None,
            ranges=ranges,
            log=head,
            on_block=lambda done: on_step(self.work[done - 1]),
            device=device,
            space=self.room.open(),
        )
        logs: dict[str, ActivationLog | WeightLog | RangeLog | HeadLog | None]
        logs = {"activations": activations, "weights": weights, "ranges": ranges, "head": head}
        state = {
            f"{name}.{key}": values
            for name, log in logs.items()
            if log is not None
            for key, values in log.state().items()
        }
        self.run.write_arrays(self.file, self.reduce(scores) | state)


def swept_chunks(
    name: str,
    inputs: Subject,
    at: Setting,
    sweep: Sweepable,
    reduce: Callable[[dict[str, TokenScores]], dict[str, Tensor]],
    *,
    group: Callable[[int], int] | None = None,
) -> list[dict[str, Tensor]]:
    """Run the sweep chunk by chunk, keeping each chunk's result in work/ until the run is done.

    group: gives the size of the weight groups for a number of inputs. Where it is given,
    `activations.…` and `ranges.…` of every chunk are kept too, and `weights.…`, which are the same
    for all, of the first. `group`, `reduce` and the sweep are pickled on their way to other
    processes, so they must be functions of modules.
    """
    model, windows, run = inputs.model, inputs.windows, at.run
    chunks, room = fix_chunks(at, name, windows), at.room_for(name)
    files = [f"work/{name}-{number:04d}.safetensors" for number in range(len(chunks))]
    work_done = count_work(model, sweep, windows.shape[1])
    steps, precision = work_done[-1], at.precision
    tasks = []
    for number, (file, chunk) in enumerate(zip(files, chunks, strict=True)):
        work = _ChunkSweep(
            run=run,
            file=file,
            model=model,
            # A copy: a view would take the whole text along.
            windows=windows[chunk].clone(),
            sweep=sweep,
            reduce=reduce,
            group=group,
            is_first=number == 0,
            work=work_done,
            room=room,
        )
        computing = InPrecision(work, precision)
        tasks.append(Task(f"chunk {number} of the {name}", (file,), steps, computing))
    total = len(tasks) * steps
    finish_tasks(tasks, run, at.workers, lambda done: at.progress(name, done, total))
    return [read_tensors(run, file) for file in files]


def read_tensors(run: RunDirectory, name: str) -> dict[str, Tensor]:
    """A safetensors file of a run as tensors."""
    return {key: torch.from_numpy(array) for key, array in run.read_arrays(name).items()}
