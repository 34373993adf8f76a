"""Where a recipe has which width and scheme; in few words, the same in reports and model cards."""

from collections.abc import Mapping

from awqscope.mixedprec.families.family import Family, UnitKind
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import (
    Grouped,
    Scheme,
    Width,
    list_quantized,
    sort_widths,
    write_width,
)
from awqscope.mixedprec.words import join_words, write_ranges


def group_by_scheme(
    recipe: Recipe, schemes: Mapping[Width, Scheme], family: Family
) -> dict[Scheme, list[tuple[UnitKind, Width]]]:
    """The schemes of a recipe's quantized units, narrowest first, each with the kinds of unit and
    their widths that it is the scheme of. schemes: width -> scheme."""
    used = {(entry.width, entry.unit.partition(".")[2]) for entry in recipe.units}
    found: dict[Scheme, list[tuple[UnitKind, Width]]] = {}
    for width in list_quantized(recipe.widths.values()):
        for kind in family.units:
            if (width, kind.name) in used:
                found.setdefault(kind.scheme(schemes[width]), []).append((kind, width))
    return found


def list_widths(recipe: Recipe) -> list[dict[str, str]]:
    """A row a kind of unit: `unit`, its name, and by width the blocks that have it there."""
    blocks: dict[str, dict[Width, list[int]]] = {}
    for entry in recipe.units:
        block, _, kind = entry.unit.partition(".")
        blocks.setdefault(kind, {}).setdefault(entry.width, []).append(int(block))
    return [
        {"unit": kind} | {str(width): write_ranges(found) for width, found in widths.items()}
        for kind, widths in blocks.items()
    ]


def list_changed(recipe: Recipe, low: int) -> str:
    """`5.qkv and 5.o at 8, 1.o at 16`: the units that are not at the width `low`."""
    by_width: dict[Width, list[str]] = {}
    for entry in recipe.units:
        if entry.width != low:
            by_width.setdefault(entry.width, []).append(entry.unit)
    return ", ".join(f"{join_words(by_width[width])} at {width}" for width in sort_widths(by_width))


def explain_groups(recipe: Recipe) -> str:
    """What "4x64" means, in a sentence with an example from the recipe; empty where every unit is
    in groups of the run's own size."""
    widths = sort_widths(recipe.widths.values())
    found = next((width for width in widths if isinstance(width, Grouped)), None)
    return f"{found} is {write_width(found)}." if found else ""
