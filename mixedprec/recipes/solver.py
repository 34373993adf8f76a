"""From scores to a recipe: the least damage within a size, or the least size for a recovery.

The damage of a recipe is taken as the sum of its units' damage (`Scores.predict`). Under that
assumption the recipe that is found is the best one: `knapsack.py` proves it, or says how far it may
be off.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.frontier import outline_frontier, trace_frontier
from awqscope.mixedprec.recipes.knapsack import Choice, choose_options, hull_steps
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit
from awqscope.mixedprec.recipes.scores import Prediction, ScoredUnit, Scores
from awqscope.mixedprec.scheme import Grouped, UnitWidths, Width, sort_widths
from awqscope.mixedprec.words import write_size

# Of a limit that comes from sums of fractions: what rounding may take from it.
ROUNDING = 1e-12


@dataclass(frozen=True)
class FrontierPoint:
    """A recipe that no other beats in both size and damage, as predicted."""

    bits: dict[str, Width]
    predicted: Prediction


def solve(
    scores: Scores,
    *,
    target_bits: float | None = None,
    max_bytes: int | None = None,
    min_recovery: float | None = None,
) -> Recipe:
    """The best recipe under exactly one of three budgets.

    target_bits: least KL at this many bits per weight, scales and zero points counted (the units'
    weights only). max_bytes: least KL with all tensors on disk within it. min_recovery: least bytes
    that give back this share of the uniform model's KL. Its provenance says what was asked, what is
    predicted, and by how much (`gap`) it may miss the best there is: nats of its units' summed KL,
    or bytes for a recovery; 0 where it is proved the best. InputError for a budget that nothing
    meets.
    """
    budget = {"target_bits": target_bits, "max_bytes": max_bytes, "min_recovery": min_recovery}
    asked = {name: value for name, value in budget.items() if value is not None}
    if len(asked) != 1:
        raise InputError(
            "a recipe is solved for one budget",
            "give one of target bits, most bytes and least recovery",
        )
    if min_recovery is not None:
        choice = _least_bytes(scores, min_recovery)
    else:
        said = f"{max_bytes} bytes" if target_bits is None else f"{target_bits} bits per weight"
        room = unit_room(scores, target_bits=target_bits, max_bytes=max_bytes)
        choice = _least_damage(scores, room, said)
    widths = {
        unit.name: unit.options[option].width
        for unit, option in zip(scores.units, choice.options, strict=True)
    }
    provenance = {
        "budget": asked,
        "predicted": asdict(scores.predict(widths)),
        "widths": [w if isinstance(w, int) else str(w) for w in list_options(scores)],
        "gap": choice.gap,
    }
    return recipe_of(scores, widths, kind="budget", provenance=provenance)


def unit_room(
    scores: Scores, *, target_bits: float | None = None, max_bytes: int | None = None
) -> int:
    """Bytes that a budget in size leaves for the units. InputError unless it is a finite number."""
    if max_bytes is not None:
        return int(max_bytes) - scores.fixed_bytes
    if target_bits is None or not math.isfinite(target_bits):
        raise InputError(f"{target_bits} bits per weight are no budget", "give a number like 4.5")
    return math.floor(target_bits * scores.weights / 8 * (1 + ROUNDING))


def recipe_of(
    scores: Scores, widths: UnitWidths, *, kind: str, provenance: Mapping[str, Any] = {}
) -> Recipe:
    """The recipe with these widths, by unit, for the scored model."""
    units = tuple(RecipeUnit(unit.name, unit.linears, widths[unit.name]) for unit in scores.units)
    return Recipe(scores.model, kind, units, provenance)


def list_frontier(scores: Scores, most: int | None = None) -> list[FrontierPoint]:
    """Every recipe that no other beats, the smallest first; for very many units those on the convex
    hull only. most: the number of them to keep, spread evenly, both ends among them."""
    frontier = trace_frontier(_damages(scores), _sizes(scores), most)
    return [
        FrontierPoint(
            {
                unit.name: unit.options[option].width
                for unit, option in zip(scores.units, options, strict=True)
            },
            scores.predict_sums(round(size), kl),
        )
        for size, kl, options in zip(
            frontier.weights.tolist(),
            frontier.costs.tolist(),
            frontier.options.tolist(),
            strict=True,
        )
    ]


def predict_outline(scores: Scores) -> list[Prediction]:
    """What is predicted of the recipes on the frontier's lower convex hull, the smallest first. No
    recipe is predicted to lie below the line that joins them. It takes no time worth speaking of,
    however many units there are."""
    sizes, damages = outline_frontier(_damages(scores), _sizes(scores))
    return [
        scores.predict_sums(round(size), max(0.0, kl))
        for size, kl in zip(sizes.tolist(), damages.tolist(), strict=True)
    ]


def list_steps(scores: Scores) -> tuple[dict[str, Width], list[tuple[str, Width]]]:
    """The recipe that `predict_outline` starts from (unit -> width), and what changes from each of
    its points to the next: a unit, and the width that it has from there on."""
    start, steps = hull_steps(_damages(scores), _sizes(scores))
    units = scores.units
    return (
        {unit.name: unit.options[at].width for unit, at in zip(units, start, strict=True)},
        [(units[unit].name, units[unit].options[after].width) for _, unit, _, after in steps],
    )


def list_options(scores: Scores) -> list[Width]:
    """Every width that some unit may have, as `rank_width` sorts them."""
    return sort_widths(option.width for unit in scores.units for option in unit.options)


def without_groups(scores: Scores) -> Scores:
    """The scores with only the run's own sizes of groups to choose from."""
    plain = tuple(width for width in list_options(scores) if not isinstance(width, Grouped))
    return limit_widths(scores, plain)


def limit_widths(scores: Scores, widths: Sequence[Width]) -> Scores:
    """The scores with these widths to choose from; a unit that is kept stays so.

    InputError for a width that was not scored, and where the uniform model's width is not among
    them: what a recipe gives back is counted from the uniform model's damage.
    """
    scored = list_options(scores)
    unknown = sort_widths(set(widths) - set(scored))
    if unknown:
        known = ", ".join(map(str, scored))
        raise InputError(f"no unit was scored at {unknown[0]} bits", f"choose from {known}")

    def limit(unit: ScoredUnit) -> ScoredUnit:
        options = tuple(option for option in unit.options if option.width in widths)
        if unit.options[0] not in options and len(unit.options) > 1:
            least = unit.options[0].width
            raise InputError(
                f"the widths leave out {least} bits, those of the uniform model", f"add {least}"
            )
        return replace(unit, options=options or unit.options)

    return replace(scores, units=tuple(map(limit, scores.units)))


def _damages(scores: Scores) -> list[list[float]]:
    return [[option.kl for option in unit.options] for unit in scores.units]


def _sizes(scores: Scores) -> list[list[float]]:
    return [[float(option.bytes) for option in unit.options] for unit in scores.units]


def _least_damage(scores: Scores, room: float, said: str) -> Choice:
    if not math.isfinite(room):
        raise InputError(f"{said} is no size", "give a number")
    choice = choose_options(_damages(scores), _sizes(scores), room)
    if choice is None:
        lightest = {u.name: min(u.options, key=lambda o: o.bytes).width for u in scores.units}
        least = scores.predict(lightest)
        # Rounded up: what it says is met when it is asked for.
        bits = math.ceil(least.bits_per_weight * 1000) / 1000
        raise InputError(
            f"no recipe is as small as {said}",
            f"give at least {bits:.3f} bits per weight, {least.bytes:,} bytes "
            f"({write_size(least.bytes)})",
        )
    return choice


def _least_bytes(scores: Scores, recovery: float) -> Choice:
    if not 0 <= recovery <= 1:
        raise InputError(f"a recovery of {recovery} is no share", "give one from 0 to 1")
    allowed = (1 - recovery + ROUNDING) * scores.uniform_sum
    choice = choose_options(_sizes(scores), _damages(scores), allowed)
    if choice is None:
        best = {u.name: min(u.options, key=lambda o: o.kl).width for u in scores.units}
        most = math.floor(scores.predict(best).recovered * 1e4 + ROUNDING) / 1e4
        raise InputError(
            f"no recipe gives back {recovery:.2%} of the lost KL",
            f"these widths give back {most:.2%} at most",
        )
    return choice
