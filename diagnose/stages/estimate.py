"""The stage `estimate`: every unit and every linear at both widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.entries.stages import Estimator
from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.inputs.sizes import linear_bytes, unit_bytes
from awqscope.diagnose.machine.precision import InPrecision
from awqscope.diagnose.machine.tasks import OnStep, Task
from awqscope.diagnose.passes.chunks import finish_tasks, fix_chunks, read_tensors
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.passes.views import read_sample
from awqscope.diagnose.plan.room import Room
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import LINEARS, UNITS
from awqscope.diagnose.sweep.estimator import estimate_units, sampling_error
from awqscope.mixedprec.families.table import Unit, list_units
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import FP16_BITS, Width

# What the sampling of tokens may add to the estimates' error (95%), and the most samples for it.
ESTIMATE_ERROR = 0.1
MOST_DRAWS = 4
ESTIMATED = ("estimated_kl", "estimated_kl_low", "estimated_kl_high")
EXACT = ("exact_kl", "exact_kl_low", "exact_kl_high")


def unquantized_row(model: SourceModel, unit: Unit, spec: RunSpec) -> dict[str, Any]:
    """The row of units.parquet of a unit at 16 bits: it is the reference, so its KL is 0."""
    return {
        "unit": unit.name,
        "block": unit.block,
        "kind": unit.kind.name,
        "bits": FP16_BITS,
        "bytes": unit_bytes(model, unit, FP16_BITS, spec),
        **dict.fromkeys(ESTIMATED + EXACT, 0.0),
    }


Things = dict[tuple[str, Width], Tensor]


@dataclass(frozen=True, kw_only=True)
class _ChunkEstimate:
    """The work of estimating on one chunk, from one sample of every token: by window, the arrays
    `units.NAME.BITS` and `linears.NAME.BITS` are written to a file of the run."""

    run: RunDirectory
    file: str
    model: SourceModel
    # The chunk's windows [n, length], and their numbers in the whole text.
    windows: Tensor
    numbers: tuple[int, ...]
    bits: tuple[int, ...]
    seed: int
    # The number of the sample.
    draw: int
    room: Room

    def __call__(self, device: torch.device, on_step: OnStep) -> None:
        found = estimate_units(
            self.model,
            self.windows,
            self.run.searches,
            self.bits,
            seed=self.seed,
            draw=self.draw,
            numbers=self.numbers,
            on_block=on_step,
            device=device,
            space=self.room.open(),
        )
        parts = {"units": found.units, "linears": found.linears}
        arrays = {
            f"{part}.{name}.{width}": kl
            for part, things in parts.items()
            for (name, width), kl in things.items()
        }
        self.run.write_arrays(self.file, arrays)


def _join_draw(chunks: Sequence[Mapping[str, Tensor]], part: str) -> Things:
    """The estimates by window of all chunks: of `units` or of `linears`."""
    joined: Things = {}
    for key in chunks[0]:
        kind, _, rest = key.partition(".")
        name, _, width = rest.rpartition(".")
        if kind == part:
            joined[name, int(width)] = torch.cat([chunk[key] for chunk in chunks])
    return joined


def _draw_estimates(
    spec: RunSpec, inputs: Inputs, at: Setting, sampled: Sequence[int]
) -> tuple[Things, Things]:
    """Estimates of units and of linears on the windows `sampled`, with as many samples of every
    token as keep what sampling adds to their error within ESTIMATE_ERROR."""
    model, windows, run = inputs.model, inputs.windows[sampled], at.run
    widths = (spec.bits, spec.rescue_bits)
    chunks, room = fix_chunks(at, "estimate", windows), at.room_for("estimate")
    steps, precision = 2 * model.blocks, at.precision
    units: list[Things] = []
    linears: list[Things] = []
    for draw in range(MOST_DRAWS):
        files = [f"work/estimate-{draw}-{n:04d}.safetensors" for n in range(len(chunks))]
        tasks = []
        for number, (file, chunk) in enumerate(zip(files, chunks, strict=True)):
            work = _ChunkEstimate(
                run=run,
                file=file,
                model=model,
                windows=windows[chunk].clone(),
                numbers=tuple(sampled[chunk]),
                bits=widths,
                seed=spec.seed,
                draw=draw,
                room=room,
            )
            computing = InPrecision(work, precision)
            tasks.append(Task(f"chunk {number} of estimate {draw}", (file,), steps, computing))
        before, total = draw * len(tasks) * steps, (draw + 1) * len(tasks) * steps

        def report(done: int, before: int = before, total: int = total) -> None:
            at.progress("estimate", before + done, total)

        finish_tasks(tasks, run, at.workers, report)
        found = [read_tensors(run, file) for file in files]
        units.append(_join_draw(found, "units"))
        linears.append(_join_draw(found, "linears"))
        low = [
            torch.stack([drawn[key] for drawn in units]) for key in units[0] if key[1] == spec.bits
        ]
        error = sampling_error(torch.stack(low, 1).double())
        if error <= ESTIMATE_ERROR:
            break
    run.update(estimator=Estimator(draws=draw + 1, sampling_error=error))
    return _mean_draw(units), _mean_draw(linears)


def _mean_draw(draws: Sequence[Things]) -> Things:
    return {key: torch.stack([drawn[key] for drawn in draws]).mean(0) for key in draws[0]}


def estimate_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """Estimate every unit and every linear at both widths, and say what a unit is at 16 bits; write
    units and linears."""
    model = inputs.model
    sample = read_sample(spec, inputs.windows, at.run)
    by_unit, by_linear = _draw_estimates(spec, inputs, at, sample.windows)

    def estimated(by_window: Tensor) -> dict[str, float]:
        estimate = sample.mean(by_window)
        values = (estimate.value, estimate.low, estimate.high)
        return dict(zip(ESTIMATED, values, strict=True))

    rows, linear_rows = [], []
    for unit in list_units(model.family, model.blocks):
        where = {"unit": unit.name, "block": unit.block}
        names = {linear: f"{model.prefix(unit.block)}.{linear}" for linear in unit.linears}
        for width in (spec.bits, spec.rescue_bits):
            rows.append(
                {
                    **where,
                    "kind": unit.kind.name,
                    "bits": width,
                    "bytes": unit_bytes(model, unit, width, spec),
                    **estimated(by_unit[unit.name, width]),
                    **dict.fromkeys(EXACT),
                }
            )
            linear_rows += [
                {
                    **where,
                    "linear": name,
                    "bits": width,
                    "bytes": linear_bytes(model, unit.block, linear, width, spec),
                    **estimated(by_linear[name, width]),
                }
                for linear, name in names.items()
            ]
        rows.append(unquantized_row(model, unit, spec))
        linear_rows += [
            {
                **where,
                "linear": name,
                "bits": FP16_BITS,
                "bytes": linear_bytes(model, unit.block, linear, FP16_BITS, spec),
                **dict.fromkeys(ESTIMATED, 0.0),
            }
            for linear, name in names.items()
        ]
    at.run.write_table("linears", linear_rows, LINEARS)
    at.run.write_table("units", rows, UNITS)
