"""A run's plan, from the model's shape, the texts, and what the machine has and does; and the room
that it gives to streams."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.diagnose.entries.plan import MemoryPlan
from awqscope.diagnose.machine.memory import (
    device_free_bytes,
    held_bytes,
    private_bytes,
    return_freed_heap,
)
from awqscope.diagnose.machine.tasks import Workers
from awqscope.diagnose.plan.demand import SEARCH, Flow, Shape
from awqscope.diagnose.plan.memory import (
    MIB,
    SLACK_BYTES,
    Machine,
    Rates,
    plan_run,
    share_budget,
)
from awqscope.diagnose.sweep.branches import Branch
from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import Family
from awqscope.mixedprec.models.dtypes import AUTO, BFLOAT16, FLOAT32, choose_precision
from awqscope.mixedprec.models.forward import products_in
from awqscope.mixedprec.models.served import served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, StreamSpace
from awqscope.mixedprec.scheme import Scheme

PROBED_SIZE = 768
PROBED_SECONDS = 0.1
# Instructions of x86 that multiply bfloat16, as torch names them.
BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
PROBED_BYTES = 32 * 2**20


def loads_whole(family: Family) -> bool:
    """Whether the proof may have transformers load a checkpoint in one go.

    Not one of a mixture of experts: transformers 5.23 stacks experts by one scheme for the whole
    model, and silently loads blocks of another width wrongly. Nor one of a family whose
    loader of weights takes no packed ones.
    """
    return family.experts is None and family.loads_packed


def read_shape(model: SourceModel) -> Shape:
    """The sizes of a model."""
    shells = [model.block_shell(number) for number in range(model.blocks)]
    largest = max(shells, key=lambda shell: sum(p.numel() for p in shell.parameters()))
    linears = {n: m for n, m in largest.named_modules() if isinstance(m, nn.Linear)}
    kinds = [
        [linears[name] for name in kind.linears if name in linears] for kind in model.family.units
    ]
    kinds = [kind for kind in kinds if kind]
    return Shape(
        blocks=model.blocks,
        channels=model.config.hidden_size,
        vocabulary=model.config.vocab_size,
        parameters=sum(p.numel() for _, p in model.list_parameters()),
        block=sum(p.numel() for p in largest.parameters()),
        linear=max(p.numel() for p in largest.parameters()),
        unit=max(sum(linear.weight.numel() for linear in kind) for kind in kinds),
        unit_inputs=tuple(kind[0].in_features for kind in kinds),
        lone=tuple(kind[0].in_features for kind in kinds if len(kind) == 1),
        widest=max(max(m.in_features, m.out_features) for m in linears.values()),
        stored=sum(path.stat().st_size for path in model.weight_paths),
        loads_whole=loads_whole(model.family),
        ends=1 if served_outside(model) is None else 2,
    )


def measure_rates(
    model: SourceModel, device: torch.device = CPU, precision: str = FLOAT32
) -> Rates:
    """What this machine does in a second, from a fraction of one. What is read of the disk may be
    in the system's cache: then reading will be slower than this says. precision: of the run."""
    one, other = (torch.ones(PROBED_SIZE, PROBED_SIZE, device=device) for _ in range(2))

    def multiplied_in(precision: str) -> float:
        with products_in(precision, device):
            return 2 * PROBED_SIZE**3 / _repeat(lambda: (one @ other).sum().item())

    in_float32 = precision == FLOAT32
    has_units = in_float32 and device.type == CPU.type and has_bfloat16_units()
    scheme = Scheme(4, 128, False)
    quantized = _repeat(lambda: fake_quantize(one, scheme).sum().item())
    path = max(model.weight_paths, key=lambda path: path.stat().st_size)
    began = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        file.seek(min(PROBED_BYTES, path.stat().st_size // 2))
        read = len(file.read(PROBED_BYTES))
    seconds = max(time.monotonic() - began, 1e-4)
    return Rates(
        flops=multiplied_in(FLOAT32),
        weights=PROBED_SIZE**2 / quantized,
        bytes=max(1, read) / seconds,
        reduced=None if in_float32 else multiplied_in(precision),
        offered=multiplied_in(BFLOAT16) if has_units else None,
    )


def has_bfloat16_units() -> bool:
    """Whether torch knows that this processor multiplies bfloat16 by instructions of its own. Where
    it does not, such products are emulated, and may take longer than those of float32."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in BFLOAT16_UNITS)


def _repeat(call: Callable[[], object]) -> float:
    """Seconds that a call takes, the first one left out."""
    call()
    began, calls, spent = time.monotonic(), 0, 0.0
    # Looked at after a call: on a busy machine the time may be over before the first.
    while spent < PROBED_SECONDS:
        call()
        calls += 1
        spent = time.monotonic() - began
    return spent / calls


def describe_machine(
    model: SourceModel, budget: int, out: Path, workers: Workers, precision: str = FLOAT32
) -> Machine:
    """What a run in the directory `out` may use, its blocks in a precision."""
    # What a device's libraries take of the host is held once they have been used.
    if precision == AUTO:
        precision = choose_precision(precision, workers.kind)
    rates = measure_rates(model, workers.device, precision)
    return_freed_heap()
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return Machine(
        budget=budget,
        held=held_bytes(),
        rates=rates,
        workers=workers.count,
        sharing=0 if workers.here else workers.sharing,
        on_device=workers.kind != CPU.type,
        device_free=device_free_bytes(workers.devices),
        disk=shutil.disk_usage(there).free,
        resting=private_bytes(),
    )


def plan_work(
    model: SourceModel,
    windows: Tensor,
    stages: Sequence[str],
    out: Path,
    workers: Workers,
    chunks: Mapping[str, int],
    *,
    budget: int,
    most_windows: int | None,
    sweep: Sequence[Branch],
    sampled: int,
    calib: Tensor | None = None,
    exact: bool = True,
    verified: int = 0,
    precision: str = FLOAT32,
) -> MemoryPlan:
    """The plan of `stages` of a run in the directory `out`. chunks: windows a chunk by stage, where
    they are decided; most_windows: the most that are wanted. calib: windows that the search reads;
    exact: whether it makes autoawq's very choices. sweep: the branches of the sweep, which are
    measured on `sampled` windows at first. verified: units that are measured exactly. precision:
    what blocks compute in. InputError for too small a budget."""
    machine = describe_machine(model, budget, out, workers, precision)
    calib = windows if calib is None else calib
    distinct = max(len(windows.unique()), len(calib.unique()))
    (calib_count, calib_length), (count, length) = calib.shape, windows.shape
    texts = Flow((calib_count, calib_length), (count, length), distinct, sampled, exact)
    kinds = len(model.family.units)
    return plan_run(
        read_shape(model),
        texts,
        machine,
        sweep_streams=len({(b.block, b.prefix, b.widths, b.suffix) for b in sweep}) + 2,
        # As if one block was flagged: its units at both widths, and every set of them promoted.
        exact_streams=verified + 2 * kinds + 2**kinds + 2,
        chunks=chunks,
        most_windows=most_windows,
        stages=stages,
    )


@dataclass(frozen=True)
class Room:
    """Memory for the streams of a stage's task. Each of `processes` has `share` bytes of `budget`;
    a task's streams may take what is left of the share after what the process holds when the task
    begins and `fixed` bytes. Streams that do not fit go to files in `folder`."""

    budget: int
    processes: int
    share: int
    fixed: int
    folder: Path

    def open(self) -> StreamSpace:
        """Where the streams are kept. InputError where the process already holds more than the plan
        has slack for."""
        return_freed_heap()
        held = held_bytes()
        left = self.share - held - self.fixed
        if left < -SLACK_BYTES:
            raise InputError(
                f"a process may have {self.share // MIB}MiB and needs "
                f"{-(-(held + self.fixed) // MIB)}MiB",
                f"give --max-memory {-(-(self.budget - left * self.processes) // MIB)}MiB or more",
            )
        return StreamSpace([(CPU, max(0, left))], self.folder)


def room_for(plan: MemoryPlan, stage: str, folder: Path) -> Room:
    """The room of a stage of a run that is carried out by `plan`. folder: where streams go that do
    not fit."""
    share = share_budget(plan.budget, plan.held, stage, plan.sharing)
    processes = plan.sharing + 1 if stage == SEARCH else max(1, plan.sharing)
    return Room(plan.budget, processes, share, plan.stage(stage).fixed_bytes, folder)
