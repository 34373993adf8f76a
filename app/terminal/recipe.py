"""A recipe and its rivals in the terminal."""

import sys
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from awqscope.app.terminal.console import PlainConsole
from awqscope.mixedprec.recipes.baselines import Contestant, judge_contest
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.scores import Scores
from awqscope.mixedprec.scheme import Width, sort_widths, write_width
from awqscope.mixedprec.words import NOTHING, write_bounded, write_number, write_size


def print_recipe(scores: Scores, recipe: Recipe, contestants: Sequence[Contestant]) -> None:
    """Print what the recipe raises, what is predicted of it, and how it compares to its rivals."""
    console = PlainConsole(width=None if sys.stdout.isatty() else 120, highlight=False)
    predicted = scores.predict(recipe.widths)
    uniform = scores.predict(scores.uniform)
    console.print(
        Text(
            f"{predicted.bits_per_weight:.3f} bits per weight of the units, "
            f"{write_size(predicted.bytes)} in all "
            f"({write_number(predicted.bytes / uniform.bytes - 1, '+.1%')} on uniform): "
            f"predicted KL {predicted.kl:.5f}, which gives back {predicted.recovered:.1%}.",
            style="bold",
        )
    )
    console.print(_raised(scores, recipe))
    gap = recipe.provenance.get("gap")
    if gap:
        console.print(f"Not proved the best: {_missed(scores, recipe, gap)} less may be possible.")
    refined = recipe.provenance.get("refined")
    if refined:
        console.print(
            f"Bettered by swaps measured on the run's text: KL {refined['kl_before']:.5f} -> "
            f"{refined['kl']:.5f}, of {refined['measured']} recipes measured."
        )
    if recipe.provenance.get("fell_back"):
        console.print("Recipes in several sizes of groups measured worse than this one.")
    console.print(rivals_table(contestants, scores.uniform_kl))
    console.print(judge_contest(contestants))


def _missed(scores: Scores, recipe: Recipe, gap: float) -> str:
    """The gap as what the recipe was chosen for: bytes, or predicted KL."""
    if "min_recovery" in recipe.provenance.get("budget", {}):
        return f"{gap:,.0f} bytes"
    return f"{gap * scores.uniform_kl / scores.uniform_sum:.2e} nats"


def _raised(scores: Scores, recipe: Recipe) -> str:
    """Which units are at another width than in the uniform model."""
    uniform = scores.uniform
    by_width: dict[Width, list[str]] = {}
    for unit, width in recipe.widths.items():
        if width != uniform[unit]:
            by_width.setdefault(width, []).append(unit)
    if not by_width:
        return "Every unit stays at its narrowest width."
    return "\n".join(
        f"At {write_width(width)} ({len(by_width[width])}): {', '.join(by_width[width])}"
        for width in sort_widths(by_width)
    )


def rivals_table(contestants: Sequence[Contestant], uniform_kl: float) -> Table:
    """A line a contestant: size, KL and the share of the uniform model's KL given back."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("within the same bytes")
    columns = ("size", "KL predicted", "KL measured [95%]", "more than this recipe", "gives back")
    for name in columns:
        table.add_column(name, justify="right")
    for each in contestants:
        table.add_row(
            each.name,
            write_size(each.bytes),
            write_number(each.predicted_kl, ".5f"),
            _bounded(each.kl, ".5f"),
            "" if each.behind == (0.0, 0.0, 0.0) else _bounded(each.behind, "+.5f"),
            f"{1 - each.standing / uniform_kl:.1%}" if uniform_kl > 0 else NOTHING,
        )
    return table


def _bounded(values: tuple[float, float, float] | None, form: str) -> str:
    return NOTHING if values is None else write_bounded(values[0], values[1:], form)
