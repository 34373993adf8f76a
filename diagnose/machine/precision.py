"""What the blocks of a run compute in: settled before it starts, and held to wherever its tasks are
carried out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from awqscope.diagnose.machine.tasks import AUTO, OnStep, Placement, list_devices
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.mixedprec.models.dtypes import choose_precision
from awqscope.mixedprec.models.forward import computing_in

Asked = TypeVar("Asked", RunSpec, CompareSpec)


@dataclass(frozen=True)
class InPrecision:
    """The work of a task with its blocks in a precision."""

    work: Callable[[torch.device, OnStep], None]
    precision: str

    def __call__(self, device: torch.device, on_step: OnStep) -> None:
        with computing_in(self.precision):
            self.work(device, on_step)


def settle_precision(spec: Asked, run: RunDirectory, placement: Placement) -> Asked:
    """A spec with the precision that its blocks compute in. `auto` is what the run there computes
    in, where there is one; it stays where a cluster is to say which devices there are. InputError
    for a precision that is not of the devices asked for."""
    if run.exists():
        there = run.read().spec.precision
        return spec.change(precision=there) if spec.precision == AUTO else spec
    kind = list_devices(placement)[0].partition(":")[0]
    if kind == AUTO:
        return spec
    return spec.change(precision=choose_precision(spec.precision, kind))
