"""Recipes bettered by measuring, with a measurement made up so that sums mislead."""

from collections.abc import Mapping

import numpy as np

from awqscope import Option, ScoredUnit, Scores, solve
from awqscope.diagnose.trials.swaps import better_recipe, in_context

NAMES = ("0.o", "0.down", "1.o", "1.down")
SCORES = Scores(
    "m",
    tuple(
        ScoredUnit(name, (name,), 200, (Option(4, 100, kl), Option(8, 200, 0.0)))
        for name, kl in zip(NAMES, (0.4, 0.3, 0.2, 0.1), strict=True)
    ),
    fixed_bytes=0,
    uniform_kl=1.0,
)


def interacting(recipes: Mapping[str, Mapping[str, int]]) -> dict[str, np.ndarray]:
    """Measured KL of two windows: 0.o and 1.down at 8 bits together undo more than their own."""
    found = {}
    for name, bits in recipes.items():
        kl = sum(unit.option(bits[unit.name]).kl for unit in SCORES.units)
        kl -= 0.3 * (bits["0.o"] == bits["1.down"] == 8)
        found[name] = np.array([kl, kl + 0.02])
    return found


def test_swaps_find_what_sums_miss() -> None:
    start = solve(SCORES, max_bytes=600)
    assert {unit for unit, bits in start.bits.items() if bits == 8} == {"0.o", "0.down"}
    found = better_recipe(SCORES, {"summed": start.bits}, 600, interacting)
    everything = [
        {name: 8 if name in pair else 4 for name in NAMES}
        for pair in [(a, b) for a in NAMES for b in NAMES]
    ]
    best = min(float(interacting({"x": bits})["x"].mean()) for bits in everything)
    assert float(found.kl.mean()) == best < float(found.kl_before.mean())
    assert {unit for unit, bits in found.bits.items() if bits == 8} == {"0.o", "1.down"}
    assert SCORES.unit_bytes(found.bits) <= 600


def test_the_start_is_kept_where_nothing_is_better() -> None:
    def additive(recipes: Mapping[str, Mapping[str, int]]) -> dict[str, np.ndarray]:
        return {name: np.array([SCORES.predict(bits).kl]) for name, bits in recipes.items()}

    start = solve(SCORES, max_bytes=600).bits
    found = better_recipe(SCORES, {"summed": start}, 600, additive)
    assert found.bits == start and found.rounds == 1


def test_a_recipe_without_a_number_is_never_the_best() -> None:
    start = solve(SCORES, max_bytes=600).bits

    def broken(recipes: Mapping[str, Mapping[str, int]]) -> dict[str, np.ndarray]:
        """Every other recipe computes no number."""
        found = {name: np.array([SCORES.predict(bits).kl]) for name, bits in recipes.items()}
        return {
            name: np.array([np.nan]) if place % 2 == 0 and recipes[name] != start else kl
            for place, (name, kl) in enumerate(found.items())
        }

    found = better_recipe(SCORES, {"summed": start}, 600, broken)
    assert found.bits == start
    # A start that is no number is left for any that is one.
    odd = {**start, "0.o": 4}
    both = {"odd": odd, "summed": start}
    measured = better_recipe(SCORES, both, 600, broken)
    assert measured.bits == start


def test_scores_in_context_share_out_what_restoring_gives() -> None:
    shifted = {unit.name: unit for unit in in_context(SCORES, {0: 0.07, 1: -0.1}).units}
    assert np.isclose(shifted["0.o"].option(4).kl, 0.04)
    assert np.isclose(shifted["0.down"].option(4).kl, 0.03)
    # Restoring block 1 makes it worse: nothing to share out, so its units stay as they were.
    assert shifted["1.o"].option(4).kl == 0.2
