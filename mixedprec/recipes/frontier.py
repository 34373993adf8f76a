"""The Pareto frontier: for every size the least damage, from one scoring.

A dynamic program over the units keeps, of all partial recipes, those that no other beats in both
size and damage. Units of one shape repeat in every block, so that sizes coincide and few are left;
where too many would be, the recipes on the lower convex hull stand for the rest: each of them is
exactly the best of its size, and no recipe at all lies below the line that joins them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awqscope.mixedprec.recipes.knapsack import Floats, hull_steps

# Points times units: what is kept to trace every point back grows with both.
MOST_CELLS = 10_000_000

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Frontier:
    """Points in ascending weight and descending cost. options: [points, units], what each chooses.
    complete: whether they are of the frontier itself, not of its hull alone."""

    weights: Floats
    costs: Floats
    options: NDArray[np.int8]
    complete: bool


def trace_frontier(
    costs: Matrix, weights: Matrix, most: int | None = None, cells: int = MOST_CELLS
) -> Frontier:
    """The frontier of one option a unit; by unit, then by option.

    most: the largest number of points, spread evenly, both ends among them. Where a partial
    frontier has more than `cells` points times units, points are the hull's.
    """
    heavy, dear = np.zeros(1), np.zeros(1)
    history: list[tuple[NDArray[np.int32], NDArray[np.int8]]] = []
    for unit_costs, unit_weights in zip(costs, weights, strict=True):
        size = len(heavy)
        heavy = np.concatenate([heavy + weight for weight in unit_weights])
        dear = np.concatenate([dear + cost for cost in unit_costs])
        order = np.lexsort((dear, heavy))
        lowest = np.minimum.accumulate(dear[order])
        order = order[np.concatenate([[True], lowest[1:] < lowest[:-1]])]
        heavy, dear = heavy[order], dear[order]
        history.append(((order % size).astype(np.int32), (order // size).astype(np.int8)))
        if len(heavy) * len(costs) > cells:
            return _choose_on_hull(costs, weights, most)
    states: NDArray[Any] = _spread(len(heavy), most)
    heavy, dear = heavy[states], dear[states]
    options = np.zeros((len(states), len(history)), dtype=np.int8)
    for unit in reversed(range(len(history))):
        parent, taken = history[unit]
        options[:, unit] = taken[states]
        states = parent[states]
    return Frontier(heavy, dear, options, complete=True)


def outline_frontier(costs: Matrix, weights: Matrix) -> tuple[Floats, Floats]:
    """Weights and costs of the recipes on the frontier's lower convex hull: the lightest, then
    every step along the units' hulls in turn."""
    start, steps = hull_steps(costs, weights)
    heavier = [weights[unit][after] - weights[unit][before] for _, unit, before, after in steps]
    dearer = [costs[unit][after] - costs[unit][before] for _, unit, before, after in steps]
    lightest = sum(of_unit[option] for of_unit, option in zip(weights, start, strict=True))
    dearest = sum(of_unit[option] for of_unit, option in zip(costs, start, strict=True))
    return np.cumsum([lightest, *heavier]), np.cumsum([dearest, *dearer])


def _choose_on_hull(costs: Matrix, weights: Matrix, most: int | None) -> Frontier:
    """The hull's points, with what each chooses."""
    start, steps = hull_steps(costs, weights)
    outline = outline_frontier(costs, weights)
    points = _spread(len(steps) + 1, most)
    options = np.tile(np.array(start, dtype=np.int8), (len(points), 1))
    for done, (_, unit, _, after) in enumerate(steps, start=1):
        options[np.searchsorted(points, done) :, unit] = after
    return Frontier(outline[0][points], outline[1][points], options, complete=False)


def _spread(count: int, most: int | None) -> NDArray[np.intp]:
    """At most `most` of `count` positions, both ends among them."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.intp)
