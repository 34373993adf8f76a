"""The stage `estimate`: every unit and every linear at both widths."""

from typing import Any

import torch
from torch import Tensor

from diagnose.bootstrap import Resampler
from diagnose.estimator import estimate_units, sampling_error
from diagnose.inputs import Inputs
from diagnose.rundir import OnProgress, RunDirectory
from diagnose.sizes import linear_bytes, unit_bytes
from diagnose.spec import RunSpec
from diagnose.stages.chunks import STREAM_SHARE, steps_of
from diagnose.sweep import list_chunks
from diagnose.tables import LINEARS, UNITS
from mixedprec.families import Unit, list_units
from mixedprec.model import SourceModel
from mixedprec.scheme import FP16_BITS

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


def _draw_estimates(
    spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress
) -> tuple[dict[tuple[str, int], Tensor], dict[tuple[str, int], Tensor]]:
    """Estimates of units and of linears by window, with as many samples of every token as keep
    what sampling adds to their error within ESTIMATE_ERROR."""
    model = inputs.model
    stream = inputs.windows.shape[1] * model.config.hidden_size * 4
    size = max(1, int(spec.max_memory * STREAM_SHARE) // (stream * (model.blocks + 4)))
    chunks = list_chunks(len(inputs.windows), size)
    steps = 2 * model.blocks
    units: dict[tuple[str, int], list[Tensor]] = {}
    linears: dict[tuple[str, int], list[Tensor]] = {}
    for draw in range(MOST_DRAWS):
        before = draw * len(chunks)
        found = [
            estimate_units(
                model,
                inputs.windows[chunk],
                run.searches,
                (spec.bits, spec.rescue_bits),
                seed=spec.seed,
                draw=draw,
                first=chunk.start,
                on_block=steps_of(
                    progress, "estimate", (before + number) * steps, (before + len(chunks)) * steps
                ),
            )
            for number, chunk in enumerate(chunks)
        ]
        for key in found[0].units:
            units.setdefault(key, []).append(torch.cat([part.units[key] for part in found]))
        for key in found[0].linears:
            linears.setdefault(key, []).append(torch.cat([part.linears[key] for part in found]))
        low = [torch.stack(draws) for (_, bits), draws in units.items() if bits == spec.bits]
        error = sampling_error(torch.stack(low, 1).double())
        if error <= ESTIMATE_ERROR:
            break
    run.update(estimator={"draws": draw + 1, "sampling_error": error})
    return (
        {key: torch.stack(draws).mean(0) for key, draws in units.items()},
        {key: torch.stack(draws).mean(0) for key, draws in linears.items()},
    )


def estimate_stage(spec: RunSpec, inputs: Inputs, run: RunDirectory, progress: OnProgress) -> None:
    """Estimate every unit and every linear at both widths, and say what a unit is at 16 bits; write
    units and linears."""
    model = inputs.model
    resampler = Resampler(len(inputs.windows), spec.seed)
    by_unit, by_linear = _draw_estimates(spec, inputs, run, progress)

    def estimated(by_window: Tensor) -> dict[str, float]:
        estimate = resampler.mean(by_window.double().numpy())
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
    run.write_table("linears", linear_rows, LINEARS)
    run.write_table("units", rows, UNITS)
