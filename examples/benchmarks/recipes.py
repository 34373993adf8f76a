"""Estimates against exhaustive measurement, and recipes against rivals of equal bytes.

`python -m examples.benchmarks.recipes [RUN ...]`: for every finished run (one of the bundled model
where none is given) every linear and every unit measured exactly, alone; how the one-pass estimates
rank and add up against that, and in what share of the time. Then, at 4.5 and 5 bits per weight, the
share of the uniform model's KL that recipes give back, all measured: solved from the run's scores,
solved from the exhaustive measurement, bettered by swaps, and baselines; and, where units may be in
smaller groups too, how many times what the best recipe in one size of groups gives back.

`--groups` before the runs leaves all but the last out.
"""

import sys
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from pandas import Series

from awqscope import Grouped, Option, Recipe, Scores, limit_widths, load_recipe, recipe_of, solve
from awqscope.app.demo import demo_spec
from awqscope.diagnose.inputs.load import Inputs, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.scores import read_scores, read_squared_errors
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.statistics.bootstrap import Resampler
from awqscope.diagnose.sweep.branches import REFERENCE, Branch, Sweep
from awqscope.diagnose.sweep.estimator import estimate_units
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.promotions import unit_branch
from awqscope.diagnose.trials.contest import better
from awqscope.diagnose.trials.course import Course
from awqscope.diagnose.trials.groups import score_groups
from awqscope.diagnose.trials.race import measure_kl
from awqscope.mixedprec.awq.search import list_columns
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.recipes.baselines import list_baselines
from awqscope.mixedprec.scheme import FP16_BITS, GROUP_SIZES

TARGETS = (4.5, 5.0)


def measure_alone(
    inputs: Inputs, spec: RunSpec, run: RunDirectory, branches: dict[str, Branch]
) -> dict[str, float]:
    """Exact KL of every branch, by name, in one sweep."""
    sweep = Sweep(
        spec.bits, tuple(spec.schemes), frozenset(), run.searches, tuple(branches.values())
    )
    scores = run_sweep(inputs.model, inputs.windows, sweep)
    return {name: float(scores[branch.name].kl.mean()) for name, branch in branches.items()}


def linear_branches(inputs: Inputs, bits: int) -> dict[str, Branch]:
    """The reference model with one linear at `bits`, by the linear's full name."""
    model = inputs.model
    branches = {}
    for unit in list_units(model.family, model.blocks):
        for linear in unit.linears:
            name = f"{model.prefix(unit.block)}.{linear}"
            branches[name] = Branch(name, unit.block, REFERENCE, ((linear, bits),), REFERENCE)
    return branches


def time_naively(inputs: Inputs, spec: RunSpec, run: RunDirectory) -> float:
    """Seconds for one model with one linear quantized, measured whole: what a loop over linears
    without sharing costs a turn."""
    split = read_scores(run.path, split_fused=True)
    bits = {unit.name: FP16_BITS for unit in split.units}
    first = split.units[0].name
    recipe = recipe_of(split, {**bits, first: spec.bits}, kind="one linear")
    began = time.perf_counter()
    measure_kl(inputs.model, inputs.windows, run.searches, {"one": recipe}, spec.max_memory)
    return time.perf_counter() - began


def judge_estimates(inputs: Inputs, spec: RunSpec, run: RunDirectory) -> None:
    """Print rank correlation, totals and time of the estimates of all linears and all units."""
    began = time.perf_counter()
    estimates = estimate_units(
        inputs.model, inputs.windows, run.searches, (spec.bits,), seed=spec.seed
    )
    estimating = time.perf_counter() - began
    branches = linear_branches(inputs, spec.bits)
    began = time.perf_counter()
    exact = measure_alone(inputs, spec, run, branches)
    sweeping = time.perf_counter() - began
    naive = time_naively(inputs, spec, run) * len(branches)
    found = {name: float(estimates.linears[name, spec.bits].mean()) for name in exact}
    correlation = Series(found).rank().corr(Series(exact).rank())
    print(
        f"  {len(exact)} linears: Spearman {correlation:.3f}, total "
        f"{sum(found.values()) / sum(exact.values()):.3f} of the exact one; estimate / exhaustive "
        f"time {estimating / naive:.3f} (one model a linear), {estimating / sweeping:.3f} (one "
        "sweep for all)",
        flush=True,
    )


def measure_exactly(inputs: Inputs, spec: RunSpec, run: RunDirectory, scores: Scores) -> Scores:
    """The scores with every unit's KL measured."""
    units = {unit.name: unit for unit in list_units(inputs.model.family, inputs.model.blocks)}
    branches = {
        f"{name}@{bits}": unit_branch(inputs.model, unit, bits)
        for name, unit in units.items()
        for bits in spec.schemes
    }
    exact = measure_alone(inputs, spec, run, branches)
    estimated = Series({u.name: u.options[0].kl for u in scores.units})
    measured = Series({u.name: exact[f"{u.name}@{u.options[0].bits}"] for u in scores.units})
    correlation = estimated.rank().corr(measured.rank())
    print(
        f"  {len(units)} units: Spearman of the run's scores {correlation:.3f}, total "
        f"{estimated.sum() / measured.sum():.3f} of the exact one"
    )
    return replace(
        scores,
        units=tuple(
            replace(
                unit,
                options=tuple(
                    Option(o.bits, o.bytes, exact.get(f"{unit.name}@{o.bits}", 0.0))
                    for o in unit.options
                ),
            )
            for unit in scores.units
        ),
    )


def race(
    inputs: Inputs, spec: RunSpec, run: RunDirectory, scores: Scores, exact: Scores, target: float
) -> None:
    """Print the share of lost KL given back at `target` bits per weight by every way to choose."""
    ours = solve(scores, target_bits=target)
    room = target * scores.weights / 8
    began = time.perf_counter()
    refined = better(Course(run, spec, inputs), scores, ours, room, lambda stage, done, total: None)
    refining = time.perf_counter() - began
    recipes = {
        "this recipe": ours,
        "exhaustive": recipe_of(scores, solve(exact, target_bits=target).bits, kind="exhaustive"),
        "refined": refined,
    }
    errors = read_squared_errors(run.path, scores)
    for name, bits in list_baselines(scores, room, errors).items():
        recipes[name] = recipe_of(scores, bits, kind=name)
    measured = measure_kl(inputs.model, inputs.windows, run.searches, recipes, spec.max_memory)
    shares = {name: 1 - float(np.mean(kl)) / scores.uniform_kl for name, kl in measured.items()}
    print(f"  {target} bits per weight, given back ({refining:.0f} s of swaps):")
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"    {name:16} {share:7.2%}")
    print(f"    this recipe / exhaustive {shares['this recipe'] / shares['exhaustive']:.4f}")


def list_smaller(spec: RunSpec, inputs: Inputs) -> list[Grouped]:
    """The run's low width in every smaller size of groups that tiles all linears."""
    columns = list_columns(inputs.model).values()
    own = spec.low.group(max(columns))
    tiling = [size for size in GROUP_SIZES if size > 0 and not any(n % size for n in columns)]
    return [Grouped(spec.bits, size) for size in tiling if size < own]


def hold_promoted(scores: Scores, own: Recipe) -> Scores:
    """The scores with the units that the run's own recipe promotes fixed as it has them."""
    widths, low = own.widths, scores.uniform
    return replace(
        scores,
        units=tuple(
            unit
            if widths[unit.name] == low[unit.name]
            else replace(unit, options=(unit.option(widths[unit.name]),))
            for unit in scores.units
        ),
    )


def race_groups(inputs: Inputs, spec: RunSpec, run: RunDirectory) -> None:
    """Print how many times the KL that the best recipe in one size of groups gives back recipes in
    several give back: of the whole model's, and of what the run's own recipe leaves."""
    smaller, own = list_smaller(spec, inputs), load_recipe(run.path / "recipe.json")
    began = time.perf_counter()
    score_groups(Course(run, spec, inputs), smaller, lambda stage, done, total: None)
    listed = ", ".join(map(str, smaller))
    print(f"  options {listed} scored in {time.perf_counter() - began:.0f} s", flush=True)
    scores = read_scores(run.path, groups=smaller)
    several = limit_widths(scores, (*spec.schemes, *smaller))
    one = limit_widths(scores, tuple(spec.schemes))
    starts = {"the whole": (one, several, recipe_of(scores, scores.uniform, kind="uniform"))}
    if own.widths != scores.uniform:
        starts["what its own recipe leaves"] = (
            hold_promoted(one, own),
            hold_promoted(several, own),
            own,
        )
    recipes: dict[str, Recipe] = {}
    for name, (plain, grouped, start) in starts.items():
        recipes[name] = start
        for target in TARGETS:
            recipes[f"{name}, one, {target}"] = solve(plain, target_bits=target)
            recipes[f"{name}, several, {target}"] = solve(grouped, target_bits=target)
    found = measure_kl(inputs.model, inputs.windows, run.searches, recipes, spec.max_memory)
    resampler = Resampler(len(inputs.windows), spec.seed)
    for target, name in product(TARGETS, starts):
        keys = [f"{name}, {sizes}, {target}" for sizes in ("several", "one")]
        back = [found[name] - found[key] for key in keys]
        bits = [8 * scores.unit_bytes(recipes[key].widths) / scores.weights for key in keys]
        shares = [each.mean() / found[name].mean() for each in back]
        ratio = resampler.ratio(*back)
        print(
            f"  {target} bits per weight, of {name}: one size of groups gives back {shares[1]:.2%} "
            f"({bits[1]:.3f} bits used), several {shares[0]:.2%} ({bits[0]:.3f}): "
            f"{ratio.value:.3f} times ({ratio.low:.3f} to {ratio.high:.3f})",
            flush=True,
        )


def main() -> None:
    """Every run in turn; one of the bundled model where none is given."""
    with tempfile.TemporaryDirectory() as folder:
        only_groups = "--groups" in sys.argv[1:2]
        paths = list(map(Path, sys.argv[1 + only_groups :]))
        if not paths:
            run_pipeline(demo_spec(0), Path(folder) / "run", lambda *event: None)
            paths = [Path(folder) / "run"]
        for path in paths:
            run, scores = RunDirectory(path), read_scores(path)
            spec = run.read_searched().spec
            inputs = load_inputs(spec)
            print(f"{spec.model}: uniform KL {scores.uniform_kl:.5f}")
            if not only_groups:
                judge_estimates(inputs, spec, run)
                exact = measure_exactly(inputs, spec, run, scores)
                for target in TARGETS:
                    race(inputs, spec, run, scores, exact, target)
            race_groups(inputs, spec, run)


if __name__ == "__main__":
    main()
