"""Selectors: the patterns by which other tools find linears, and the check that they find the right
ones.

A tool reads a selector by one of four rules, and most accidents come from confusing them:
`.*v_proj` finds qkv_proj, `layers.1` finds layers.11. Every selector written here is anchored at
both ends, so that all four rules read it alike, and states which linears it means.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.scheme import LinearWidths, Width

# How the tools match a pattern to a name.
RULES: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda pattern, name: pattern == name,
    "match": lambda pattern, name: re.match(pattern, name) is not None,
    "search": lambda pattern, name: re.search(pattern, name) is not None,
    "glob": lambda pattern, name: fnmatchcase(name, pattern),
}

# Linears that a server fuses, as the recipe's names end -> the name the server gives the result.
FUSED = {
    kind.linears: kind.fused
    for family in FAMILIES.values()
    for kind in family.units
    if len(kind.linears) > 1
}


@dataclass(frozen=True)
class Selector:
    """A pattern as a tool reads it, with what it is to find.

    rule: a key of RULES. means: names in the tool's own naming. width: what it gives them.
    """

    pattern: str
    rule: str
    means: tuple[str, ...]
    width: Width


@dataclass(frozen=True)
class LinearName:
    """A linear's name in three: "model.layers", 3, "self_attn.q_proj"."""

    blocks: str
    block: int
    tail: str


def split_linear(linear: str) -> LinearName | None:
    """A linear's name in three, by the first number in it; None where it has none."""
    found = re.fullmatch(r"(.+?)\.(0|[1-9][0-9]*)\.(.+)", linear)
    return LinearName(found[1], int(found[2]), found[3]) if found else None


def check_selectors(selectors: Sequence[Selector], linears: Iterable[str]) -> None:
    """Raise InputError unless every selector finds all that it means of `linears` and nothing else,
    and every one of them is found by exactly one selector."""
    names = list(linears)
    finders: dict[str, str] = {}
    for selector in selectors:
        matches = RULES[selector.rule]
        found = [name for name in names if matches(selector.pattern, name)]
        if not found:
            raise InputError(
                f"the selector {selector.pattern!r} finds no linear", "check the recipe's names"
            )
        strays = sorted(set(found) ^ set(selector.means))
        if strays:
            how = "also finds" if strays[0] in found else "does not find"
            raise InputError(
                f"the selector {selector.pattern!r} {how} {strays[0]}", "check the recipe's names"
            )
        for name in found:
            if name in finders:
                raise InputError(
                    f"{name} is found by {finders[name]!r} and by {selector.pattern!r}",
                    "give every linear one width",
                )
            finders[name] = selector.pattern
    missed = [name for name in names if name not in finders]
    if missed:
        raise InputError(f"no selector finds {missed[0]}", "check the recipe's names")


def make_patterns(widths: LinearWidths, *, fused: bool) -> list[Selector]:
    """Anchored regular expressions for linears (name -> width), few and readable: one for each
    width and kind of unit, listing its blocks. Read alike by match and search.

    fused: where a whole fused unit has one width, its pattern also lists the name that a server
    gives it, because servers look the fused linear up.
    """
    grouped: dict[tuple[Width, str, tuple[str, ...]], list[int]] = {}
    single: list[Selector] = []
    for block, linears in _by_block(widths).items():
        if block is None:
            single += [
                Selector(f"^{re.escape(name)}$", "match", (name,), widths[name])
                for name in linears.values()
            ]
            continue
        blocks, number = block
        for tails in _bundles({tail: widths[name] for tail, name in linears.items()}):
            key = (widths[linears[tails[0]]], blocks, tails)
            grouped.setdefault(key, []).append(number)
    return single + [
        Selector(
            rf"^{re.escape(blocks)}\.({'|'.join(map(str, numbers))})\.{_any_of(tails, fused)}$",
            "match",
            tuple(f"{blocks}.{number}.{tail}" for number in numbers for tail in tails),
            width,
        )
        for (width, blocks, tails), numbers in grouped.items()
    ]


def _by_block(names: Iterable[str]) -> dict[tuple[str, int] | None, dict[str, str]]:
    """Block -> tail -> linear; None holds what is in no block."""
    found: dict[tuple[str, int] | None, dict[str, str]] = {}
    for name in names:
        at = split_linear(name)
        key = (at.blocks, at.block) if at else None
        found.setdefault(key, {})[at.tail if at else name] = name
    return found


def _bundles(tails: LinearWidths) -> list[tuple[str, ...]]:
    """The linears of a block (tail -> width) by fused unit where that has one width, else one by
    one."""
    bundles: dict[tuple[str, ...], None] = {}
    for tail, width in tails.items():
        whole = next(
            (
                unit
                for unit in FUSED
                if tail in unit and all(tails.get(other) == width for other in unit)
            ),
            (tail,),
        )
        bundles[whole] = None
    return list(bundles)


def _any_of(tails: tuple[str, ...], fused: bool) -> str:
    """A pattern for one unit's tails, which lie in one module: `self_attn.(q_proj|k_proj)`."""
    if len(tails) == 1:
        return re.escape(tails[0])
    names = [*tails, FUSED[tails]] if fused else tails
    module = tails[0].rpartition(".")[0] + "."
    return re.escape(module) + f"({'|'.join(re.escape(n.removeprefix(module)) for n in names)})"


def rename(widths: LinearWidths, name_of: Callable[[str], str]) -> dict[str, Width]:
    """Widths by a tool's own names. InputError where two linears would have one name."""
    renamed: dict[str, Width] = {}
    for linear, width in widths.items():
        name = name_of(linear)
        if name in renamed:
            raise InputError(f"two linears of the recipe are {name} there", "check its names")
        renamed[name] = width
    return renamed


def find_split(
    widths: LinearWidths, together: Iterable[tuple[str, ...]] = FUSED
) -> tuple[str, str] | None:
    """Two linears of one block that have different widths and belong together, or None. together:
    names inside a block of linears that do, by default those of each fused unit."""
    for linears in _by_block(widths).values():
        for unit in together:
            held = [linears[tail] for tail in unit if tail in linears]
            for name in held[1:]:
                if widths[name] != widths[held[0]]:
                    return held[0], name
    return None
