"""Baselines: cheap ways to choose which units get more bits, which a recipe has to beat
at equal bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.recipes.scores import ScoredUnit, Scores
from awqscope.mixedprec.recipes.solver import without_groups
from awqscope.mixedprec.scheme import UnitWidths, Width

SEEDS = (0, 1, 2, 3, 4)
RECIPE = "this recipe"
# The best recipe of the same bytes whose units are all in groups of the run's own size.
ONE_SIZE = "one size of groups"

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
        return as_cost(self.predicted_kl if self.kl is None else self.kl[0])


def rank_contest(contestants: Iterable[Contestant]) -> list[Contestant]:
    """The recipe first, then its rivals, the best first."""
    return sorted(contestants, key=lambda each: (each.name != RECIPE, each.standing))


def predict_contest(
    scores: Scores, recipe: UnitWidths, baselines: Mapping[str, UnitWidths]
) -> list[Contestant]:
    """A contest by what the scores predict, before anything is measured."""
    found = {RECIPE: recipe, **baselines}
    predicted = {name: scores.predict(widths) for name, widths in found.items()}
    return rank_contest(
        Contestant(name, each.bytes, each.kl, None, None) for name, each in predicted.items()
    )


def read_contest(provenance: Mapping[str, Any]) -> list[Contestant]:
    """The contest that a recipe's provenance keeps as `rivals`; empty where it keeps none.
    InputError where it is damaged."""

    def bounded(values: Any) -> Bounded | None:
        if values is None:
            return None
        value, low, high = map(float, values)
        return value, low, high

    try:
        return [
            Contestant(
                str(rival["name"]),
                int(rival["bytes"]),
                None if rival["predicted_kl"] is None else float(rival["predicted_kl"]),
                bounded(rival["kl"]),
                bounded(rival["behind"]),
            )
            for rival in provenance.get("rivals", ())
        ]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError("the recipe's rivals cannot be read", "race it again") from error


def judge_contest(contestants: Sequence[Contestant]) -> str:
    """Where the recipe stands, in a sentence that hides no loss."""
    recipe, *rivals = contestants
    how = "measured" if recipe.kl is not None else "predicted"
    better = [each for each in rivals if each.standing < recipe.standing]
    sure = [each for each in better if each.behind is not None and each.behind[2] < 0]
    if not rivals:
        return "Nothing was there to compare it with."
    if not better:
        return f"No rival within the same bytes is {how} to do better."
    names = ", ".join(each.name for each in better)
    if recipe.kl is not None and not sure:
        return f"IT IS NOT THE BEST: {names} measured lower, within what windows differ by."
    return f"IT LOSES: {names} {'is' if len(better) == 1 else 'are'} {how} to do better."


def list_baselines(
    scores: Scores, room: float, squared_errors: Mapping[str, float] = {}
) -> dict[str, dict[str, Width]]:
    """Name -> a recipe (unit -> width) that raises units in some order while they fit in `room`
    bytes of units: all to their next width first, then, where room is left, to the one after. They
    know of the run's own size of groups alone.

    squared_errors: ‖ΔW‖² by unit, at the first width; without them there is no baseline by weight
    error. Its order is by error taken away for a byte, which is kinder to it than by error alone.
    """
    scores = without_groups(scores)
    units = [unit for unit in scores.units if len(unit.options) > 1]
    orders: dict[str, Sequence[ScoredUnit]] = {
        "first blocks": units,
        "last blocks": units[::-1],
        "down only": [unit for unit in units if unit.kind.rpartition(".")[2].startswith("down")],
    }
    if squared_errors:
        orders["weight error"] = sorted(
            units, key=lambda unit: -squared_errors.get(unit.name, 0) / max(1, _extra(unit, 1))
        )
    for seed in SEEDS:
        orders[f"random {seed}"] = Random(seed).sample(units, len(units))
    return {name: _fill(scores, order, room) for name, order in orders.items()}


def _extra(unit: ScoredUnit, step: int) -> int:
    """Bytes that this step up its widths adds to a unit."""
    return unit.options[step].bytes - unit.options[step - 1].bytes


def _fill(scores: Scores, order: Sequence[ScoredUnit], room: float) -> dict[str, Width]:
    """Units of `order` raised one by one; those that no longer fit are passed."""
    steps = dict.fromkeys(scores.uniform, 0)
    left = room - scores.unit_bytes(scores.uniform)
    for step in range(1, max((len(unit.options) for unit in order), default=1)):
        for unit in order:
            fits = step < len(unit.options) and _extra(unit, step) <= left
            if fits and steps[unit.name] == step - 1:
                steps[unit.name] = step
                left -= _extra(unit, step)
    return {unit.name: unit.options[steps[unit.name]].width for unit in scores.units}
