"""Which layers did 4-bit AWQ hurt, how surely, and what is the cheapest repair?

What scripts use is here, and stays as it is; each name is taken from where it is made when it is
first asked for. With the scores of a finished run (examples/script_a_recipe.py does all of it):

    scores = awqscope.read_scores("reports/my-model")
    recipe = awqscope.solve(scores, target_bits=4.5)
    scores.predict(recipe.widths).recovered
    awqscope.save_recipe("mine.json", awqscope.change_recipe(recipe, {"3.down": 8}))

None of these imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "Grouped",
    "InputError",
    "Option",
    "Prediction",
    "Recipe",
    "RecipeUnit",
    "ScoredUnit",
    "Scores",
    "__version__",
    "change_recipe",
    "diff_recipes",
    "limit_widths",
    "list_frontier",
    "load_recipe",
    "read_scores",
    "recipe_of",
    "save_recipe",
    "solve",
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
