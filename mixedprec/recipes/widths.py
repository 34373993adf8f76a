"""Where a recipe has which width and scheme; in few words, the same in reports and model cards."""

from collections.abc import Mapping

from awqscope.mixedprec.families.family import Family, UnitKind
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme
from awqscope.mixedprec.words import join_words, write_ranges


def group_by_scheme(
    recipe: Recipe, schemes: Mapping[int, Scheme], family: Family
) -> dict[Scheme, list[UnitKind]]:
    """The schemes of a recipe's quantized units, narrowest first, each with the kinds of unit that
    have it in some block. schemes: bits -> scheme."""
    used = {(entry.bits, entry.unit.partition(".")[2]) for entry in recipe.units}
    found: dict[Scheme, list[UnitKind]] = {}
    for bits in sorted({bits for bits, _ in used} - {FP16_BITS}):
        for kind in family.units:
            if (bits, kind.name) in used:
                found.setdefault(kind.scheme(schemes[bits]), []).append(kind)
    return found


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
