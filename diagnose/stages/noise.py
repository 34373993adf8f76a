"""The noise floor of a run: a task beside the chunks of its sweep."""

from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.diagnose.entries.stages import NoiseFloor
from awqscope.diagnose.inside.noise import choose_windows, measure_noise
from awqscope.diagnose.machine.tasks import OnStep, Task
from awqscope.diagnose.passes.chunks import Subject, finish_tasks, read_tensors
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.models.dtypes import HIGHER
from awqscope.mixedprec.models.source import SourceModel

FILE = "work/noise.safetensors"


@dataclass(frozen=True, kw_only=True)
class _Noise:
    """The work of measuring the floor: what was found is written to a file of the run."""

    run: RunDirectory
    model: SourceModel
    # The few windows [n, length] that it is measured on.
    windows: Tensor
    precision: str

    def __call__(self, device: torch.device, on_step: OnStep) -> None:
        found = measure_noise(self.model, self.windows, self.precision, device=device)
        self.run.write_arrays(FILE, found)
        on_step(1)


def find_floor(inputs: Subject, at: Setting) -> NoiseFloor:
    """The noise floor of what is measured in a run. Whether its task is done is not shown: it is a
    fraction of a chunk's."""
    chosen, precision = choose_windows(len(inputs.windows)), at.precision
    windows = inputs.windows[chosen]
    work = _Noise(run=at.run, model=inputs.model, windows=windows, precision=precision)
    task = Task("the noise floor", (FILE,), 1, work)
    finish_tasks([task], at.run, at.workers, lambda done: None)
    found = read_tensors(at.run, FILE)
    return NoiseFloor(
        precision=precision,
        against=HIGHER[precision],
        kl=float(found["kl"].double().mean()),
        nll_difference=float(found["nll_difference"].double().mean()),
        windows=chosen,
        tokens=found["kl"].numel(),
    )
