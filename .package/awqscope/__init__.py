"""Which layers did 4-bit AWQ hurt, how surely, and what is the cheapest repair?

What scripts and notebooks use is here, and stays as it is; each name is taken from where it is made
when it is first asked for. A run, read (examples/guides/python.md lists all of it):

    run = awqscope.read_run("reports/my-model")
    run.blocks, run.units, run.tokens, run.headline     # pandas DataFrames
    run.figure("blocks")                                # every chart of the dashboard
    awqscope.gate(run, "policy.toml").limits

With the scores of a finished run (examples/script_a_recipe.py does all of it):

    recipe = awqscope.solve(run.scores, target_bits=4.5)
    run.scores.predict(recipe.widths).recovered
    awqscope.save_recipe("mine.json", awqscope.change_recipe(recipe, {"3.down": 8}))

None of these imports torch. `why`, `probe`, `calibrate`, `alternatives`, `activations`, `weights`
and `tasks` measure, and do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awqscope.app.notebook.compared import Ranking, Trend, rank, trend
    from awqscope.app.notebook.release import GateResult, gate
    from awqscope.app.notebook.run import Run, read_run, read_runs
    from awqscope.app.notebook.studies import (
        activations,
        alternatives,
        calibrate,
        probe,
        tasks,
        weights,
        why,
    )
    from awqscope.diagnose.gate.policy import load_policy
    from awqscope.diagnose.runs.scores import read_scores
    from awqscope.mixedprec.errors import InputError
    from awqscope.mixedprec.recipes.recipe import (
        Change,
        Recipe,
        RecipeUnit,
        change_recipe,
        diff_recipes,
        load_recipe,
        save_recipe,
    )
    from awqscope.mixedprec.recipes.scores import Option, Prediction, ScoredUnit, Scores
    from awqscope.mixedprec.recipes.solver import (
        FrontierPoint,
        limit_widths,
        list_frontier,
        recipe_of,
        solve,
    )
    from awqscope.mixedprec.scheme import Grouped

# Module -> the public names that it makes.
_MADE_BY = {
    "app.notebook.compared": ("Ranking", "Trend", "rank", "trend"),
    "app.notebook.release": ("GateResult", "gate"),
    "app.notebook.run": ("Run", "read_run", "read_runs"),
    "app.notebook.studies": (
        "activations",
        "alternatives",
        "calibrate",
        "probe",
        "tasks",
        "weights",
        "why",
    ),
    "diagnose.gate.policy": ("load_policy",),
    "diagnose.runs.scores": ("read_scores",),
    "mixedprec.errors": ("InputError",),
    "mixedprec.recipes.recipe": (
        "Change",
        "Recipe",
        "RecipeUnit",
        "change_recipe",
        "diff_recipes",
        "load_recipe",
        "save_recipe",
    ),
    "mixedprec.recipes.scores": ("Option", "Prediction", "ScoredUnit", "Scores"),
    "mixedprec.recipes.solver": (
        "FrontierPoint",
        "limit_widths",
        "list_frontier",
        "recipe_of",
        "solve",
    ),
    "mixedprec.scheme": ("Grouped",),
}
_HOMES = {name: module for module, names in _MADE_BY.items() for name in names}

__all__ = [
    "Change",
    "FrontierPoint",
    "GateResult",
    "Grouped",
    "InputError",
    "Option",
    "Prediction",
    "Ranking",
    "Recipe",
    "RecipeUnit",
    "Run",
    "ScoredUnit",
    "Scores",
    "Trend",
    "__version__",
    "activations",
    "alternatives",
    "calibrate",
    "change_recipe",
    "diff_recipes",
    "gate",
    "limit_widths",
    "list_frontier",
    "load_policy",
    "load_recipe",
    "probe",
    "rank",
    "read_run",
    "read_runs",
    "read_scores",
    "recipe_of",
    "save_recipe",
    "solve",
    "tasks",
    "trend",
    "weights",
    "why",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # It takes longer to import than all else that is imported here.
        from importlib.metadata import version

        # Kept: Dash asks for it anew with every component of the dashboard's own.
        globals()[name] = version("awqscope")
        return globals()[name]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
