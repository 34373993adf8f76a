"""A recipe against cheap ones of equal bytes, all measured with a run's own searches and text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from awqscope.diagnose.inputs.load import Inputs, load_inputs
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.bootstrap import bounds
from awqscope.diagnose.trials.finished import open_source
from awqscope.diagnose.trials.race import judge_race, measure_kl
from awqscope.diagnose.trials.swaps import better_recipe, in_context
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.baselines import RECIPE, Contestant, rank_contest
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.recipes.scores import Scores
from awqscope.mixedprec.recipes.solver import recipe_of, solve
from awqscope.mixedprec.scheme import GROUP_SIZES, UnitWidths

# Where recipes are raced, half of the memory budget is for their streams.
STREAM_SHARE = 0.5


@dataclass(frozen=True)
class Course:
    """What a contest is measured with: a run, its spec, its model and texts."""

    run: RunDirectory
    spec: RunSpec
    inputs: Inputs


def open_course(run: RunDirectory, model: str | None) -> Course:
    """The run's model (at `model` where it has moved) and texts. InputError where they are not what
    the run measured."""
    record = run.read_searched()
    source = open_source(run, model)
    try:
        inputs = load_inputs(record.spec, source)
    except InputError as error:
        began = record.directory
        where = f"give the command in {began}, where the run was begun" if began else error.remedy
        raise InputError(error.what, where) from error
    return Course(run, record.spec, inputs)


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

    starts = {"summed": recipe.bits, "in context": contextual.bits}
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
) -> list[Contestant]:
    """The recipe and its rivals measured in full, the recipe first, then by KL. A rival besides
    `baselines`: every unit at the low width with the smallest groups that fit in `room` bytes of
    units, searched anew."""
    run, spec, inputs = course.run, course.spec, course.inputs
    memory = int(spec.max_memory * STREAM_SHARE)
    recipes = {RECIPE: recipe}
    recipes |= {name: recipe_of(scores, bits, kind=name) for name, bits in baselines.items()}
    measured = measure_kl(
        inputs.model,
        inputs.windows,
        run.searches,
        recipes,
        memory,
        lambda done, total: progress("measuring", done, total),
    )
    predicted = {name: scores.predict(found.bits) for name, found in recipes.items()}
    sizes = {name: found.bytes for name, found in predicted.items()}
    grouped = _smaller_groups(spec, inputs, room + scores.fixed_bytes)
    if grouped is not None:
        name = f"uniform, groups of {grouped.group_size}"
        folder = run.path / "races" / f"awq-g{grouped.group_size}"
        blocks = inputs.model.blocks
        search_model(
            inputs.model,
            inputs.search_windows,
            [grouped.low],
            folder,
            lambda done: progress("searching smaller groups", done, blocks),
            exact=spec.is_exact,
        )
        uniform = make_recipe(
            recipe.model,
            inputs.model.family,
            blocks,
            spec.bits,
            changed=dict.fromkeys(spec.keep_fp16, 16),
        )
        measured |= measure_kl(
            inputs.model,
            inputs.windows,
            folder,
            {name: uniform},
            memory,
            lambda done, total: progress("measuring smaller groups", done, total),
        )
        sizes[name] = model_bytes(inputs.model, grouped, {})[0]
    return rank_contest(
        Contestant(
            name,
            sizes[name],
            predicted[name].kl if name in predicted else None,
            bounds(result.kl),
            bounds(result.behind),
        )
        for name, result in judge_race(measured, RECIPE, spec.seed).items()
    )


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
