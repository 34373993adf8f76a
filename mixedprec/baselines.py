"""Cheap ways to choose what gets more bits, to be beaten at equal bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from mixedprec.scores import ScoredUnit, Scores

SEEDS = (0, 1, 2, 3, 4)
RECIPE = "this recipe"

# A value and the bounds of its interval.
Bounded = tuple[float, float, float]


@dataclass(frozen=True)
class Contestant:
    """A recipe among rivals of equal bytes. bytes: of all tensors. predicted_kl, kl (measured), and
    behind (how much more that is than the recipe's, paired): nats a token; None where not known."""

    name: str
    bytes: int
    predicted_kl: float | None
    kl: Bounded | None
    behind: Bounded | None

    @property
    def standing(self) -> float:
        """What contestants are ranked by: measured KL, or predicted where nothing is measured."""
        if self.kl is not None:
            return self.kl[0]
        return float("inf") if self.predicted_kl is None else self.predicted_kl


def rank_contest(contestants: Iterable[Contestant]) -> list[Contestant]:
    """The recipe first, then its rivals, the best first."""
    return sorted(contestants, key=lambda each: (each.name != RECIPE, each.standing))


def predict_contest(
    scores: Scores, recipe: Mapping[str, int], baselines: Mapping[str, Mapping[str, int]]
) -> list[Contestant]:
    """A contest by what the scores predict, before anything is measured."""
    found = {RECIPE: recipe, **baselines}
    predicted = {name: scores.predict(bits) for name, bits in found.items()}
    return rank_contest(
        Contestant(name, each.bytes, each.kl, None, None) for name, each in predicted.items()
    )


def judge_contest(contestants: Sequence[Contestant]) -> str:
    """Where the recipe stands, in a sentence that hides no loss."""
    recipe, *rivals = contestants
    how = "measured" if recipe.kl is not None else "predicted"
    better = [each for each in rivals if each.standing < recipe.standing]
    sure = [each for each in better if each.behind is not None and each.behind[2] < 0]
    if not rivals:
        return "Nothing was there to compare it with."
    if not better:
        return f"No rival of equal bytes is {how} to do better."
    names = ", ".join(each.name for each in better)
    if recipe.kl is not None and not sure:
        return f"IT IS NOT THE BEST: {names} measured lower, within what windows differ by."
    return f"IT LOSES: {names} {'is' if len(better) == 1 else 'are'} {how} to do better."


def list_baselines(
    scores: Scores, room: float, bits: int, squared_errors: Mapping[str, float] = {}
) -> dict[str, dict[str, int]]:
    """Name -> a recipe (unit -> bits) that raises units to `bits` in some order while they fit in
    `room` bytes of units.

    squared_errors: ‖ΔW‖² by unit, at the first width; without them there is no baseline by weight
    error. Its order is by error taken away for a byte, which is kinder to it than by error alone.
    """
    units = [unit for unit in scores.units if any(o.bits == bits for o in unit.options)]
    orders: dict[str, Sequence[ScoredUnit]] = {
        "first blocks": units,
        "last blocks": units[::-1],
        "down only": [unit for unit in units if unit.kind.rpartition(".")[2].startswith("down")],
    }
    if squared_errors:
        orders["weight error"] = sorted(
            units, key=lambda unit: -squared_errors.get(unit.name, 0) / _extra(unit, bits)
        )
    for seed in SEEDS:
        orders[f"random {seed}"] = Random(seed).sample(units, len(units))
    return {name: _fill(scores, order, room, bits) for name, order in orders.items()}


def _extra(unit: ScoredUnit, bits: int) -> int:
    """Bytes that a unit takes more at `bits`; at least one."""
    return max(1, unit.option(bits).bytes - unit.options[0].bytes)


def _fill(scores: Scores, order: Sequence[ScoredUnit], room: float, bits: int) -> dict[str, int]:
    """Units of `order` raised to `bits` one by one; those that no longer fit are passed."""
    widths = scores.uniform
    left = room - scores.unit_bytes(widths)
    for unit in order:
        if unit.options[0].bits < bits and _extra(unit, bits) <= left:
            widths[unit.name] = bits
            left -= _extra(unit, bits)
    return widths
