"""A run's scores: what its tables say of every unit, as the solver takes it. Imports no torch."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import EXPERTS
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit, load_recipe
from awqscope.mixedprec.recipes.scores import Option, ScoredUnit, Scores
from awqscope.mixedprec.scheme import FP16_BITS, Grouped, Width, rank_width, sort_widths

# A unit's name, its linears, and bits -> option.
Part = tuple[str, tuple[str, ...], dict[int, Option]]


def read_scores(
    path: Path | str, *, split_fused: bool = False, groups: Collection[Grouped] = ()
) -> Scores:
    """The scores of the run in directory `path`: exact KL where it was measured, else estimated.

    groups: widths in other sizes of groups than the run's own, which units may have besides once
    they are scored (`awqscope recipe --options`).

    split_fused: every linear of a fused unit is a unit of its own, named BLOCK.LINEAR; experts,
    which no engine splits, stay together, and `groups` are not scored so. InputError
    for a comparison, a run that has not chosen its recipe yet, or that an earlier version made.
    """
    run = RunDirectory(Path(path))
    run.read_searched()
    if not run.is_done("recipe"):
        raise InputError(f"{path} has not scored its units", run.how_to_finish())
    recipe = load_recipe(run.path / "recipe.json")
    return add_groups(run, score_units(run, recipe, split_fused=split_fused), groups)


def score_units(run: RunDirectory, recipe: Recipe, *, split_fused: bool = False) -> Scores:
    """The scores of the units that a recipe of a run names, as `read_scores` gives them."""
    record, path = run.read_searched(), run.path
    kept = set(record.spec.keep_fp16)
    by_unit = _options(run.read_table("units").to_pylist(), "unit")
    if any(FP16_BITS not in options for options in by_unit.values()):
        raise InputError(
            f"{run.path / 'units.parquet'} lacks 16 bits (an earlier version made it)",
            "run it again elsewhere",
        )
    by_linear = _options(run.read_table("linears").to_pylist(), "linear") if split_fused else {}
    units: list[ScoredUnit] = []
    for entry in recipe.units:
        if entry.unit not in by_unit:
            raise InputError(
                f"{path} has no scores of unit {entry.unit}, which its recipe.json names",
                "put back the recipe that the run chose",
            )
        whole: Part = (entry.unit, entry.linears, by_unit[entry.unit])
        block, _, _ = entry.unit.partition(".")
        parts: list[Part] = [
            (f"{block}.{linear.partition(f'.{block}.')[2]}", (linear,), by_linear[linear])
            for linear in (entry.linears if split_fused and _is_fused(entry) else ())
        ]
        for name, linears, options in [*parts] or [whole]:
            widths = [FP16_BITS] if entry.unit in kept else sorted(options)
            units.append(
                ScoredUnit(
                    name,
                    linears,
                    weights=options[FP16_BITS].bytes // 2,
                    options=tuple(options[bits] for bits in widths),
                )
            )
    headline = record.measured
    uniform_bytes = sum(unit.options[0].bytes for unit in units)
    return Scores(
        model=recipe.model,
        units=tuple(units),
        fixed_bytes=headline.bytes.uniform - uniform_bytes,
        uniform_kl=headline.kl.uniform,
    )


def read_group_rows(run: RunDirectory) -> list[dict[str, Any]]:
    """The rows of groups.parquet; none where nothing was scored in other groups than the run's."""
    if not (run.path / "groups.parquet").exists():
        return []
    return run.read_table("groups").to_pylist()


def list_scored(run: RunDirectory) -> list[Grouped]:
    """The widths in other groups than its own that a run has scores of."""
    rows = read_group_rows(run)
    return list(dict.fromkeys(Grouped(row["bits"], row["group_size"]) for row in rows))


def find_unscored(run: RunDirectory, groups: Collection[Grouped]) -> list[Grouped]:
    """Those of `groups` that a run has no scores of, in their order."""
    scored = list_scored(run)
    return [width for width in groups if width not in scored]


def how_to_score(run: RunDirectory, widths: Collection[Width]) -> str:
    """The remedy where a run has no searches or scores at some widths in groups of other sizes."""
    listed = ",".join(map(str, sort_widths({run.read_searched().spec.bits, *widths})))
    return f"make them with awqscope recipe {run.path} --options {listed} --min-recovery 50%"


def add_groups(run: RunDirectory, scores: Scores, groups: Collection[Grouped]) -> Scores:
    """The scores with further options: units in groups of other sizes than the run's own.

    Their KL is what the unit costs in the run's own groups, exact where it was measured, times the
    ratio of the two estimates, which were made together. InputError where they are not scored.
    """
    unscored = find_unscored(run, groups)
    if unscored:
        raise InputError(
            f"{run.path} has no scores of units at {unscored[0]}", how_to_score(run, unscored)
        )
    rows = {
        (row["unit"], Grouped(row["bits"], row["group_size"])): row for row in read_group_rows(run)
    }

    def add(unit: ScoredUnit) -> ScoredUnit:
        if unit.options[0].width == FP16_BITS:
            return unit
        more = []
        for width in groups:
            row, own = rows[unit.name, width], unit.option(width.bits)
            ratio = change_by_groups(row)
            if not math.isfinite(ratio):
                raise InputError(
                    f"{unit.name} at {width} has no finite KL", "leave it out of the options"
                )
            more.append(Option(width, row["bytes"], own.kl * ratio))
        options = sorted((*unit.options, *more), key=lambda option: rank_width(option.width))
        return replace(unit, options=tuple(options))

    return replace(scores, units=tuple(map(add, scores.units)))


def change_by_groups(row: Mapping[str, Any]) -> float:
    """What the KL of a unit in the run's own groups is multiplied by, from its row of
    groups.parquet."""
    return float(row["estimated_kl"] / row["own_kl"]) if row["own_kl"] > 0 else 1.0


def read_squared_errors(path: Path | str, scores: Scores) -> dict[str, float]:
    """‖ΔW‖² of every unit at the low width; empty for a run of a version that did not keep it."""
    run = RunDirectory(Path(path))
    if not (run.path / "weights.parquet").exists():
        return {}
    table = run.read_table("weights")
    if "squared_error" not in table.column_names:
        return {}
    by_linear = {(row["block"], row["linear"]): row["squared_error"] for row in table.to_pylist()}

    def find(unit: ScoredUnit, linear: str) -> float:
        inside = linear.partition(f".{unit.block}.")[2]
        return by_linear.get((unit.block, inside), 0.0)

    return {unit.name: sum(find(unit, name) for name in unit.linears) for unit in scores.units}


def _is_fused(entry: RecipeUnit) -> bool:
    return len(entry.linears) > 1 and not entry.unit.endswith(f".{EXPERTS}")


def _options(rows: list[dict[str, Any]], key: str) -> dict[str, dict[int, Option]]:
    """Name -> bits -> option, from rows of units.parquet or linears.parquet."""
    found: dict[str, dict[int, Option]] = {}
    for row in rows:
        exact = row.get("exact_kl")
        kl = exact if exact is not None else row["estimated_kl"]
        if not math.isfinite(kl):
            raise InputError(
                f"{row[key]} at {row['bits']} bits has no finite KL", "keep it out with --keep-fp16"
            )
        found.setdefault(row[key], {})[row["bits"]] = Option(row["bits"], row["bytes"], kl)
    return found
