"""Make: quantization arithmetic, the AWQ search, recipes, checkpoints. Imports nothing above it.

What scripts use is here, and stays as it is. With a run's `Scores`, which the package above reads
(examples/script_a_recipe.py does all of it):

    recipe = solve(scores, target_bits=4.5)
    scores.predict(recipe.bits).recovered
    save_recipe("mine.json", change_recipe(recipe, {"3.down": 8}))

Nothing of it imports torch.
"""

from mixedprec.errors import InputError
from mixedprec.recipe import (
    Change,
    Recipe,
    RecipeUnit,
    change_recipe,
    diff_recipes,
    load_recipe,
    save_recipe,
)
from mixedprec.scores import Option, Prediction, ScoredUnit, Scores
from mixedprec.solver import FrontierPoint, limit_widths, list_frontier, recipe_of, solve

__all__ = [
    "Change",
    "FrontierPoint",
    "InputError",
    "Option",
    "Prediction",
    "Recipe",
    "RecipeUnit",
    "ScoredUnit",
    "Scores",
    "change_recipe",
    "diff_recipes",
    "limit_widths",
    "list_frontier",
    "load_recipe",
    "recipe_of",
    "save_recipe",
    "solve",
]
