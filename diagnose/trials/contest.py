"""A recipe against cheap ones of equal bytes, all measured with a run's own searches and text."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from awqscope.diagnose.inputs.load import Inputs
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.bootstrap import bounds
from awqscope.diagnose.trials.course import STREAM_SHARE, Course
from awqscope.diagnose.trials.groups import search_groups
from awqscope.diagnose.trials.race import judge_race, measure_kl
from awqscope.diagnose.trials.swaps import better_recipe, in_context
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.baselines import ONE_SIZE, RECIPE, Contestant, rank_contest
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.recipes.scores import Scores
from awqscope.mixedprec.recipes.solver import recipe_of, solve, without_groups
from awqscope.mixedprec.scheme import FP16_BITS, GROUP_SIZES, Grouped, UnitWidths

FALLBACK, SEVERAL = "fallback", "several sizes of groups"


def better(
    course: Course, scores: Scores, recipe: Recipe, room: float, progress: OnProgress
) -> Recipe:
    """`recipe` bettered by measured swaps within `room` bytes of units (`swaps.py`)."""
    run, spec, inputs = course.run, course.spec, course.inputs
    uniform = run.read_searched().measured.kl.uniform
    gains = {
        row["block"]: uniform - row["kl"]
        for row in run.read_table("blocks").to_pylist()
        if row["view"] == "restored"
    }
    shifted = in_context(scores, gains)
    contextual = solve(shifted, max_bytes=int(room) + scores.fixed_bytes)
    calls = 0

    def measure(wanted: Mapping[str, UnitWidths]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        recipes = {name: recipe_of(scores, bits, kind="tried") for name, bits in wanted.items()}
        return measure_kl(
            inputs.model,
            inputs.windows,
            run.searches,
            recipes,
            int(spec.max_memory * STREAM_SHARE),
            lambda done, total: progress(f"round {calls}", done, total),
        )

    starts = {"summed": recipe.widths, "in context": contextual.widths}
    one_size = _solve_one_size(scores, recipe, room)
    if one_size is not None:
        starts[ONE_SIZE] = one_size.widths
    found = better_recipe(shifted, starts, room, measure)
    # The gap to the best sum says nothing of a recipe that is chosen by measuring.
    provenance = {
        **{name: value for name, value in recipe.provenance.items() if name != "gap"},
        "predicted": asdict(scores.predict(found.bits)),
        "refined": {
            "measured": found.measured,
            "rounds": found.rounds,
            "kl_before": float(found.kl_before.mean()),
            "kl": float(found.kl.mean()),
        },
    }
    return recipe_of(scores, found.bits, kind="budget, refined", provenance=provenance)


def hold_contest(
    course: Course,
    scores: Scores,
    recipe: Recipe,
    baselines: Mapping[str, UnitWidths],
    room: float,
    progress: OnProgress,
) -> tuple[Recipe, list[Contestant]]:
    """The recipe and its rivals measured in full, the recipe first, then by KL.

    Rivals besides `baselines`: every unit at the low width with the smallest groups that fit in
    `room` bytes of units; and, of a recipe over several sizes of groups, the best one in the run's
    own size. Where that measures lower the recipe in one size is given back, with the other as its
    rival: of a budget in size the same, and for a recovery the one that is predicted to keep to it.
    """
    run, spec, inputs = course.run, course.spec, course.inputs
    recipes = {RECIPE: recipe}
    recipes |= {name: recipe_of(scores, bits, kind=name) for name, bits in baselines.items()}
    one_size = _solve_one_size(scores, recipe, room)
    fallback = None
    if one_size is not None:
        recipes[ONE_SIZE] = one_size
        fallback = _choose_fallback(scores, recipe, one_size)
    if fallback is not None:
        recipes[FALLBACK] = fallback
    predicted = {name: scores.predict(found.widths) for name, found in recipes.items()}
    sizes = {name: found.bytes for name, found in predicted.items()}
    grouped = _smaller_groups(spec, inputs, room + scores.fixed_bytes)
    if grouped is not None:
        width = Grouped(spec.bits, grouped.low.group_size)
        name = f"uniform, {grouped.low.write_groups()}"
        search_groups(course, [width], progress)
        kept = dict.fromkeys(spec.keep_fp16, FP16_BITS)
        family, blocks = inputs.model.family, inputs.model.blocks
        recipes[name] = make_recipe(recipe.model, family, blocks, width, changed=kept)
        sizes[name] = model_bytes(inputs.model, grouped, {})[0]
    measured = measure_kl(
        inputs.model,
        inputs.windows,
        run.searches,
        recipes,
        int(spec.max_memory * STREAM_SHARE),
        lambda done, total: progress("measuring", done, total),
    )
    by_name: tuple[dict[str, Any], ...] = (measured, predicted, sizes)
    if fallback is not None:
        worst = max(measured[ONE_SIZE].mean(), measured[FALLBACK].mean())
        if worst < measured[RECIPE].mean():
            recipe = _fall_back(scores, recipe, fallback)
            for found in by_name:
                found[SEVERAL], found[RECIPE] = found[RECIPE], found[FALLBACK]
        # A recipe that is given back is no rival of itself.
        is_given = recipe.widths == recipes[ONE_SIZE].widths
        for found in by_name:
            del found[FALLBACK]
            if is_given:
                del found[ONE_SIZE]
    contestants = [
        Contestant(
            name,
            sizes[name],
            predicted[name].kl if name in predicted else None,
            bounds(result.kl),
            bounds(result.behind),
        )
        for name, result in judge_race(measured, RECIPE, spec.seed).items()
    ]
    return recipe, rank_contest(contestants)


def _solve_one_size(scores: Scores, recipe: Recipe, room: float) -> Recipe | None:
    """The best recipe within `room` bytes of units in the run's own size of groups; None where the
    recipe has no other size, or nothing fits."""
    if not any(isinstance(width, Grouped) for width in recipe.widths.values()):
        return None
    try:
        return solve(without_groups(scores), max_bytes=int(room) + scores.fixed_bytes)
    except InputError:
        return None


def _choose_fallback(scores: Scores, recipe: Recipe, one_size: Recipe) -> Recipe | None:
    """The recipe in one size of groups that answers what `recipe` was asked for. one_size: the best
    within its bytes, which is predicted to give back less than a recipe that is the smallest for a
    recovery. None where no widths in one size give back so much."""
    recovery = recipe.provenance.get("budget", {}).get("min_recovery")
    if recovery is None:
        return one_size
    try:
        return solve(without_groups(scores), min_recovery=recovery)
    except InputError:
        return None


def _fall_back(scores: Scores, recipe: Recipe, one_size: Recipe) -> Recipe:
    """The recipe in one size of groups, as the answer to what the other was the answer to."""
    provenance = {
        **{name: value for name, value in recipe.provenance.items() if name != "refined"},
        "predicted": asdict(scores.predict(one_size.widths)),
        "gap": one_size.provenance["gap"],
        "fell_back": True,
    }
    return replace(one_size, kind="budget", provenance=provenance)


def _smaller_groups(spec: RunSpec, inputs: Inputs, most: float) -> RunSpec | None:
    """The spec with the smallest groups below the run's own whose uniform model fits in `most`
    bytes, if any does."""
    largest = max(module.in_features for module in _linears(inputs))
    now = spec.low.group(largest)
    for group in sorted(size for size in GROUP_SIZES if 0 < size < now):
        divides = all(module.in_features % group == 0 for module in _linears(inputs))
        smaller = spec.change(group_size=group)
        if divides and model_bytes(inputs.model, smaller, {})[0] <= most:
            return smaller
    return None


def _linears(inputs: Inputs) -> list[Any]:
    model = inputs.model
    shell = model.block_shell(0)
    return [shell.get_submodule(name) for kind in model.family.units for name in kind.linears]
