"""Sweeps chunk by chunk: each chunk's result is a file in work/ until the run is done."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diagnose.activations import ActivationLog
from diagnose.rundir import OnProgress, RunDirectory
from diagnose.spec import RunSpec
from diagnose.spikes import Thresholds
from diagnose.sweep import (
    Branch,
    Plan,
    Sweepable,
    list_chunks,
    run_sweep,
    windows_a_chunk,
)
from diagnose.weights import WeightLog
from mixedprec.model import SourceModel

# Half of the memory budget is for streams; blocks, the head and the search use the rest.
STREAM_SHARE = 0.5


class Options(Protocol):
    """What a sweep is asked, by a run or a comparison."""

    @property
    def seed(self) -> int: ...

    @property
    def max_memory(self) -> int: ...

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


def plan_sweep(
    spec: RunSpec, model: SourceModel, run: RunDirectory, branches: tuple[Branch, ...]
) -> Plan:
    """What a run sweeps: the uniform model of its spec, and `branches`."""
    return Plan(
        spec.bits, (spec.bits, spec.rescue_bits), frozenset(spec.keep_fp16), run.searches, branches
    )


def steps_of(progress: OnProgress, stage: str, before: int, total: int) -> Callable[[int], None]:
    """Reports steps of one chunk as steps of the whole stage."""
    return lambda done: progress(stage, before + done, total)


def swept_chunks(
    name: str,
    spec: Options,
    inputs: Subject,
    run: RunDirectory,
    plan: Sweepable,
    progress: OnProgress,
    reduce: Callable[[dict], dict[str, Tensor]],
    *,
    group: Callable[[int], int] | None = None,
) -> list[dict[str, Tensor]]:
    """Run the plan chunk by chunk, keeping each chunk's result in work/ until the run is done.

    group: keep `activations.…` of every chunk too, and `weights.…`, which are the same for all, of
    the first; it gives the size of the weight groups for a number of inputs.
    """
    model, windows = inputs.model, inputs.windows
    record = run.read()
    sizes = record.get("chunks", {})
    if name not in sizes:
        budget = int(spec.max_memory * STREAM_SHARE)
        sizes = {**sizes, name: windows_a_chunk(model, plan, windows.shape[1], budget)}
        run.update(chunks=sizes)
    chunks = list_chunks(len(windows), sizes[name])
    steps = model.blocks + 1
    total = len(chunks) * steps
    for number, chunk in enumerate(chunks):
        file = f"work/{name}-{number:04d}.safetensors"
        if run.holds(file):
            continue
        activations, weights = ActivationLog(), WeightLog(group or int)
        scores = run_sweep(
            model,
            windows[chunk],
            plan,
            observe=activations.observe if group else None,
            inspect=weights.observe if group and number == 0 else None,
            on_block=steps_of(progress, name, number * steps, total),
        )
        state = {f"activations.{key}": value for key, value in activations.state().items()}
        state |= {f"weights.{key}": value for key, value in weights.state().items()}
        run.write_arrays(file, reduce(scores) | state)
    return [read_tensors(run, f"work/{name}-{n:04d}.safetensors") for n in range(len(chunks))]


def read_tensors(run: RunDirectory, name: str) -> dict[str, Tensor]:
    """A safetensors file of a run as tensors."""
    return {key: torch.from_numpy(array) for key, array in run.read_arrays(name).items()}
