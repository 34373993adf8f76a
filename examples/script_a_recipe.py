"""Recipes from Python: `python -m examples.script_a_recipe RUN OUT.json`.

Reads a finished run's scores, solves for two budgets, looks at what they differ in, changes one by
hand and saves it for `awqscope requantize`.
"""

import sys

from awqscope import change_recipe, diff_recipes, list_frontier, read_scores, save_recipe, solve


def main(run: str, out: str) -> None:
    """Print what each recipe should come to, and save the last."""
    scores = read_scores(run)
    small = solve(scores, target_bits=4.5)
    large = solve(scores, min_recovery=0.95)
    for name, recipe in (("4.5 bits", small), ("95% recovered", large)):
        predicted = scores.predict(recipe.widths)
        print(f"{name}: {predicted.bytes:,} bytes, {predicted.recovered:.1%} given back")
    for change in diff_recipes(small, large):
        print(f"  {change.unit}: {change.before} -> {change.after}")
    print(f"{len(list_frontier(scores))} recipes that no other beats")
    last = scores.units[-1].name
    save_recipe(out, change_recipe(small, {last: 8}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
