"""The recipe: a width for every unit, with its provenance, as a plain JSON file.

{"schema": 1, "model": …, "kind": "flagged", "provenance": {…},
 "units": [{"unit": "3.qkv", "linears": ["model.layers.3.self_attn.q_proj", …], "bits": 8}, …]}

A unit whose groups are not of the run's own size has a `group_size` beside its bits. A file with
such units is of schema 2, so that versions that know of no groups refuse it.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import Family, Unit, list_units
from awqscope.mixedprec.files.atomic import write_json
from awqscope.mixedprec.files.untrusted import parse_json, read_text
from awqscope.mixedprec.scheme import (
    FP16_BITS,
    GROUP_SIZES,
    Grouped,
    UnitWidths,
    Width,
    bits_of,
    in_own_groups,
)

SCHEMA, GROUPED_SCHEMA = 1, 2
# BLOCK.KIND, or BLOCK.LINEAR where fused units are split.
UNIT_NAME = re.compile(r"[0-9]{1,6}(\.[\w-]+)+")


@dataclass(frozen=True)
class RecipeUnit:
    """One unit's choice; `linears` are full module names in the model."""

    unit: str
    linears: tuple[str, ...]
    width: Width

    @property
    def bits(self) -> int:
        """The bits of each weight, whatever its groups."""
        return bits_of(self.width)


@dataclass(frozen=True)
class Recipe:
    """unit -> width for a whole model. kind: how it was chosen ("uniform", "flagged", …)."""

    model: str
    kind: str
    units: tuple[RecipeUnit, ...]
    provenance: Mapping[str, Any]

    @property
    def bits(self) -> dict[str, int]:
        """Unit name -> bits, whatever their groups."""
        return {entry.unit: entry.bits for entry in self.units}

    @property
    def widths(self) -> dict[str, Width]:
        """Unit name -> width, groups included."""
        return {entry.unit: entry.width for entry in self.units}

    def linear_widths(self) -> dict[str, Width]:
        """Full linear name -> width."""
        return {name: entry.width for entry in self.units for name in entry.linears}

    def block_widths(self, prefix: str) -> dict[str, Width]:
        """Linear name inside the block at `prefix` ("model.layers.3") -> width."""
        start = prefix + "."
        return {
            name.removeprefix(start): width
            for name, width in self.linear_widths().items()
            if name.startswith(start)
        }

    def in_own_groups(self, own: int) -> "Recipe":
        """The recipe as a run with groups of `own` has it: units in groups of that size are at
        plain widths."""
        units = tuple(replace(entry, width=in_own_groups(entry.width, own)) for entry in self.units)
        return replace(self, units=units)


@dataclass(frozen=True)
class Change:
    """What one recipe gives a unit and another does; None for a recipe that lacks the unit."""

    unit: str
    before: Width | None
    after: Width | None


def change_recipe(recipe: Recipe, widths: UnitWidths) -> Recipe:
    """The recipe with other widths by unit, its kind "by hand"; linears that are fused go
    together, as its units hold them. InputError for a unit that it lacks."""
    unknown = sorted(set(widths) - set(recipe.widths))
    if unknown:
        raise InputError(f"the recipe has no unit {unknown[0]!r}", "name units as it does")
    units = tuple(
        replace(entry, width=widths.get(entry.unit, entry.width)) for entry in recipe.units
    )
    return Recipe(recipe.model, "by hand", units, {"from": recipe.kind, **recipe.provenance})


def diff_recipes(before: Recipe, after: Recipe) -> list[Change]:
    """The units whose width differs, in the order of computation."""
    old, new = before.widths, after.widths
    return [
        Change(unit, old.get(unit), new.get(unit))
        for unit in dict.fromkeys([*old, *new])
        if old.get(unit) != new.get(unit)
    ]


def make_recipe(
    model: str,
    family: Family,
    blocks: int,
    width: Width,
    *,
    changed: UnitWidths = {},
    kind: str = "uniform",
    provenance: Mapping[str, Any] = {},
) -> Recipe:
    """Every unit at `width`, but for `changed` (unit name -> width)."""
    units = list_units(family, blocks)
    check_names(changed, units)
    entries = tuple(
        RecipeUnit(
            unit.name,
            tuple(f"{family.blocks}.{unit.block}.{linear}" for linear in unit.linears),
            changed.get(unit.name, width),
        )
        for unit in units
    )
    return Recipe(model, kind, entries, dict(provenance))


def check_names(names: UnitWidths | list[str], units: tuple[Unit, ...]) -> None:
    """Raise InputError for a unit name that the model does not have."""
    known = {unit.name for unit in units}
    unknown = sorted(set(names) - known)
    if unknown:
        kinds = ", ".join(dict.fromkeys(unit.kind.name for unit in units))
        last = units[-1].block
        raise InputError(
            f"the model has no unit {unknown[0]!r}",
            f"a unit is BLOCK.KIND with a block from 0 to {last} and a kind of {kinds}",
        )


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as its file holds it."""
    return {
        "schema": GROUPED_SCHEMA if any(map(_write_groups, recipe.units)) else SCHEMA,
        "model": recipe.model,
        "kind": recipe.kind,
        "provenance": dict(recipe.provenance),
        "units": [
            {
                "unit": entry.unit,
                "linears": list(entry.linears),
                "bits": entry.bits,
                **_write_groups(entry),
            }
            for entry in recipe.units
        ],
    }


def _write_groups(entry: RecipeUnit) -> dict[str, int]:
    """What a unit's entry has besides where its groups are not of the run's own size."""
    return {"group_size": entry.width.group_size} if isinstance(entry.width, Grouped) else {}


def save_recipe(path: Path | str, recipe: Recipe) -> None:
    """Write the recipe as JSON, in one step."""
    write_json(Path(path), recipe_json(recipe))


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe. InputError where the file is missing, is not a recipe, or has a width other
    than 2 to 8 and 16, or groups of a size that nothing is quantized in."""
    try:
        data = parse_json(read_text(Path(path)))
        units = tuple(map(_read_unit, data["units"]))
        if not all(isinstance(data[entry], str) for entry in ("model", "kind")):
            raise TypeError("model and kind are texts")
        provenance = data.get("provenance", {})
        if not isinstance(provenance, dict):
            raise TypeError("provenance is an object")
        recipe = Recipe(data["model"], data["kind"], units, provenance)
    except OSError as error:
        raise InputError(f"{path} cannot be read", error.strerror or "check the path") from error
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a recipe", "see reports/README.md for its form") from error
    if data.get("schema") not in (SCHEMA, GROUPED_SCHEMA):
        raise InputError(
            f"{path} is of recipe schema {data.get('schema')}",
            f"this version reads schemas {SCHEMA} and {GROUPED_SCHEMA}",
        )
    odd = [entry.unit for entry in units if not (2 <= entry.bits <= 8 or entry.bits == FP16_BITS)]
    if odd:
        raise InputError(f"{path} gives {odd[0]} an impossible width", "use 2 to 8 bits, or 16")
    for entry in units:
        width = entry.width
        if isinstance(width, Grouped) and (
            width.bits == FP16_BITS or width.group_size not in GROUP_SIZES
        ):
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise InputError(
                f"{path} gives {entry.unit} {width.bits} bits in groups of {width.group_size}",
                f"use groups of {sizes} (one a row), and none at 16 bits",
            )
    return recipe


def _read_unit(entry: Any) -> RecipeUnit:
    """A unit as a recipe's file has it. LookupError, TypeError or ValueError for anything else."""
    unit, linears, bits = entry["unit"], entry["linears"], entry["bits"]
    if not UNIT_NAME.fullmatch(unit):
        raise ValueError(f"{unit!r} is no unit")
    if not isinstance(linears, list) or not all(isinstance(name, str) for name in linears):
        raise TypeError("linears are a list of names")
    size = entry.get("group_size")
    if any(isinstance(number, bool) or not isinstance(number, int) for number in (bits, size or 0)):
        raise TypeError("bits and the size of groups are whole numbers")
    return RecipeUnit(unit, tuple(linears), bits if size is None else Grouped(bits, size))


def check_fits(recipe: Recipe, family: Family, blocks: int) -> None:
    """Raise InputError unless the recipe names every unit of the model once, with its linears."""
    wanted = make_recipe(recipe.model, family, blocks, FP16_BITS)
    fused = {linear: entry for entry in wanted.units for linear in entry.linears}
    known = {entry.unit for entry in wanted.units}
    for entry in recipe.units:
        whole = fused.get(next(iter(entry.linears), ""))
        if entry.unit not in known and whole and set(entry.linears) < set(whole.linears):
            raise InputError(
                f"the recipe splits the fused unit {whole.unit} ({entry.unit})",
                "vLLM and SGLang fuse its linears and refuse or corrupt it: solve without "
                "--split-fused, or --emit it for an engine that does not fuse",
            )
    expected = {entry.unit: set(entry.linears) for entry in wanted.units}
    check_names([entry.unit for entry in recipe.units], list_units(family, blocks))
    twice = [name for name, count in Counter(e.unit for e in recipe.units).items() if count > 1]
    if twice:
        raise InputError(f"the recipe names the unit {twice[0]} twice", "give every unit one width")
    missing = sorted(set(expected) - {entry.unit for entry in recipe.units})
    if missing:
        raise InputError(f"the recipe leaves out unit {missing[0]}", "give every unit a width")
    for entry in recipe.units:
        if set(entry.linears) != expected[entry.unit]:
            raise InputError(
                f"the recipe's unit {entry.unit} does not hold the linears a server fuses",
                f"list {', '.join(sorted(expected[entry.unit]))}",
            )
