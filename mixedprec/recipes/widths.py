"""Where a recipe has which width, in few words: the same in reports and model cards."""

from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.words import join_words, write_ranges


def list_widths(recipe: Recipe) -> list[dict[str, str]]:
    """A row a kind of unit: `unit`, its name, and by width the blocks that have it there."""
    blocks: dict[str, dict[int, list[int]]] = {}
    for entry in recipe.units:
        block, _, kind = entry.unit.partition(".")
        blocks.setdefault(kind, {}).setdefault(entry.bits, []).append(int(block))
    return [
        {"unit": kind} | {str(bits): write_ranges(found) for bits, found in widths.items()}
        for kind, widths in blocks.items()
    ]


def list_changed(recipe: Recipe, low: int) -> str:
    """`5.qkv and 5.o at 8, 1.o at 16`: the units that are not at the width `low`."""
    by_width: dict[int, list[str]] = {}
    for entry in recipe.units:
        if entry.bits != low:
            by_width.setdefault(entry.bits, []).append(entry.unit)
    return ", ".join(f"{join_words(units)} at {bits}" for bits, units in sorted(by_width.items()))
