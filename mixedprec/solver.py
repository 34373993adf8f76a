"""From scores to a recipe: the least damage within a size, or the least size for a recovery.

The damage of a recipe is taken as the sum of its units' own (see `Scores.predict`), and the best
recipe is then exact: `knapsack.py` proves it, or says how far it may be off.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mixedprec.errors import InputError
from mixedprec.frontier import trace_frontier
from mixedprec.knapsack import Choice, choose_options
from mixedprec.recipe import Recipe, RecipeUnit
from mixedprec.scores import Prediction, ScoredUnit, Scores


@dataclass(frozen=True)
class FrontierPoint:
    """A recipe that no other beats in both size and damage, as predicted."""

    bits: dict[str, int]
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
    that give back this share of the uniform model's KL. Its provenance says what was asked and
    what is predicted. InputError for a budget that nothing meets.
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
    elif target_bits is not None:
        room = target_bits * scores.weights / 8
        choice = _least_damage(scores, room, f"{target_bits} bits per weight")
    else:
        assert max_bytes is not None
        choice = _least_damage(scores, max_bytes - scores.fixed_bytes, f"{max_bytes} bytes")
    bits = {
        unit.name: unit.options[option].bits
        for unit, option in zip(scores.units, choice.options, strict=True)
    }
    provenance = {
        "budget": asked,
        "predicted": asdict(scores.predict(bits)),
        "widths": sorted({option.bits for unit in scores.units for option in unit.options}),
        "gap": choice.gap,
    }
    return recipe_of(scores, bits, kind="budget", provenance=provenance)


def recipe_of(
    scores: Scores, bits: Mapping[str, int], *, kind: str, provenance: Mapping[str, Any] = {}
) -> Recipe:
    """The recipe with these widths (unit -> bits) for the scored model."""
    units = tuple(RecipeUnit(unit.name, unit.linears, bits[unit.name]) for unit in scores.units)
    return Recipe(scores.model, kind, units, provenance)


def list_frontier(scores: Scores, most: int | None = None) -> list[FrontierPoint]:
    """Every recipe that no other beats, the smallest first; for very many units those on the convex
    hull only. most: no more than so many of them, spread evenly, both ends among them."""
    frontier = trace_frontier(_damages(scores), _sizes(scores))
    rows: Sequence[int] = range(len(frontier.options))
    if most is not None and len(rows) > most:
        rows = [round(i * (len(rows) - 1) / (most - 1)) for i in range(most)]
    points = []
    for row in rows:
        options = frontier.options[row].tolist()
        bits = {
            unit.name: unit.options[option].bits
            for unit, option in zip(scores.units, options, strict=True)
        }
        points.append(FrontierPoint(bits, scores.predict(bits)))
    return points


def limit_widths(scores: Scores, widths: tuple[int, ...]) -> Scores:
    """The scores with these widths to choose from; a unit with none of them keeps what it has."""

    def limit(unit: ScoredUnit) -> ScoredUnit:
        options = tuple(option for option in unit.options if option.bits in widths)
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
        lightest = {u.name: min(u.options, key=lambda o: o.bytes).bits for u in scores.units}
        least = scores.predict(lightest)
        raise InputError(
            f"no recipe is as small as {said}",
            f"the smallest has {least.bits_per_weight:.3f} bits per weight, {least.bytes} bytes",
        )
    return choice


def _least_bytes(scores: Scores, recovery: float) -> Choice:
    if not 0 <= recovery <= 1:
        raise InputError(f"a recovery of {recovery} is no share", "give one from 0 to 1")
    allowed = (1 - recovery) * scores.uniform_sum
    choice = choose_options(_sizes(scores), _damages(scores), allowed)
    if choice is None:
        best = {u.name: min(u.options, key=lambda o: o.kl).bits for u in scores.units}
        raise InputError(
            f"no recipe gives back {recovery:.2%} of the lost KL",
            f"these widths give back {scores.predict(best).recovered:.2%} at most",
        )
    return choice
