"""Where a recipe has which width, in few words: the same in reports and model cards."""

from collections.abc import Sequence

from awqscope.mixedprec.recipes.recipe import Recipe


def write_ranges(numbers: Sequence[int]) -> str:
    """`0–4, 6` for 0, 1, 2, 3, 4 and 6."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


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


def join_words(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
