"""The stage `exact`: units measured exactly, and promotions inside flagged blocks."""

import torch
from torch import Tensor

from awqscope.diagnose.entries.stages import Estimator
from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.inputs.sizes import unit_bytes
from awqscope.diagnose.passes.chunks import Pass, Passes, build_sweep
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.passes.views import read_sample
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import PROMOTIONS, UNITS
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.sweep.branches import UNIFORM
from awqscope.diagnose.sweep.promotions import (
    Promotion,
    choose_promotion,
    pick_for_verification,
    promotion_branches,
    rank_correlation,
    unit_branch,
)
from awqscope.mixedprec.families.table import list_units


def kl_by_window(scores: dict[str, TokenScores]) -> dict[str, Tensor]:
    """What a chunk keeps: every branch's mean KL of each window."""
    return {f"kl.{name}": found.kl.double().mean(1) for name, found in scores.items()}


def exact_stage(spec: RunSpec, inputs: Inputs, at: Setting) -> None:
    """Measure units exactly: those of flagged blocks, and enough others to check the estimator."""
    model, run = inputs.model, at.run
    kept = frozenset(spec.keep_fp16)
    record = run.read_searched()
    rows = run.read_table("units").to_pylist()
    units = {u.name: u for u in list_units(model.family, model.blocks) if u.name not in kept}
    promotable = {unit.block for unit in units.values()}
    flagged = [block for block in record.measured.flagged if block in promotable]
    estimates = {
        r["unit"]: r["estimated_kl"] for r in rows if r["bits"] == spec.bits and r["unit"] in units
    }
    verified = pick_for_verification(estimates, spec.verify_units)
    inside = [name for name, unit in units.items() if unit.block in flagged]
    measured = [(name, spec.bits) for name in dict.fromkeys([*inside, *verified])]
    measured += [(name, spec.rescue_bits) for name in inside]
    promotions = {
        branch: (block, names)
        for block in flagged
        for branch, names in promotion_branches(
            model, block, spec.bits, spec.rescue_bits, kept
        ).items()
    }
    branches = [unit_branch(model, units[name], bits) for name, bits in measured]
    sweep = build_sweep(spec, model, run, (*branches, *promotions))
    sample = read_sample(spec, inputs.windows, run)
    windows = inputs.windows[sample.windows]
    [chunks] = Passes("exact", at).carry_out(
        Pass(name="exact", model=model, windows=windows, sweep=sweep, reduce=kl_by_window)
    )
    by_window = {name: torch.cat([c[name] for c in chunks]) for name in chunks[0]}
    index = {(row["unit"], row["bits"]): row for row in rows}
    for name, bits in measured:
        estimate = sample.mean(by_window[f"kl.unit.{name}.{bits}"])
        index[name, bits] |= {
            "exact_kl": estimate.value,
            "exact_kl_low": estimate.low,
            "exact_kl_high": estimate.high,
        }
    uniform_kl = sample.mean(by_window[f"kl.{UNIFORM}"]).value
    found = [
        Promotion(block, names, sample.mean(by_window[f"kl.{branch.name}"]).value)
        for branch, (block, names) in promotions.items()
    ]
    extra = {
        name: unit_bytes(model, unit, spec.rescue_bits, spec)
        - unit_bytes(model, unit, spec.bits, spec)
        for name, unit in units.items()
    }
    chosen = set()
    for block in flagged:
        of_block = [p for p in found if p.block == block]
        whole = max(of_block, key=lambda p: len(p.units))
        chosen.add(whole if spec.whole_blocks else choose_promotion(of_block, uniform_kl, extra))
    run.write_table("units", rows, UNITS)
    run.write_table(
        "promotions",
        [
            {
                "block": p.block,
                "units": list(p.units),
                "kl": p.kl,
                "given_back": 1 - p.kl / uniform_kl if uniform_kl > 0 else None,
                "extra_bytes": sum(extra[name] for name in p.units),
                "chosen": p in chosen,
            }
            for p in found
        ],
        PROMOTIONS,
    )
    exact = [index[name, spec.bits] for name in dict.fromkeys([*inside, *verified])]
    correlation = rank_correlation(
        [row["estimated_kl"] for row in exact], [row["exact_kl"] for row in exact]
    )
    given_back = sum(1 - p.kl / uniform_kl for p in chosen) if uniform_kl > 0 else 0.0
    estimator = record.estimator or Estimator()
    run.update(
        estimator=estimator.changed(spearman=correlation, verified_units=len(exact)),
        headline=record.measured.changed(predicted_recovered=min(1.0, given_back)),
    )
