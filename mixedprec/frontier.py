"""The Pareto frontier: for every size the least damage, from one scoring.

A dynamic program over the units keeps, of all partial recipes, those that no other beats in both
size and damage. Units of one shape repeat in every block, so that sizes coincide and few are left;
where too many would be, the recipes on the lower convex hull stand for the rest: each of them is
exactly the best of its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixedprec.knapsack import hull_steps

MOST_POINTS = 100_000


@dataclass(frozen=True)
class Frontier:
    """Points in ascending weight and descending cost. options: [points, units], what each chooses.
    complete: whether these are all points, not the hull's alone."""

    weights: np.ndarray
    costs: np.ndarray
    options: np.ndarray
    complete: bool


def trace_frontier(
    costs: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], most: int = MOST_POINTS
) -> Frontier:
    """The frontier of one option a unit; by unit, then by option.

    Where a partial frontier has more than `most` points, the hull's points only.
    """
    heavy, dear = np.zeros(1), np.zeros(1)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for unit_costs, unit_weights in zip(costs, weights, strict=True):
        size = len(heavy)
        heavy = np.concatenate([heavy + weight for weight in unit_weights])
        dear = np.concatenate([dear + cost for cost in unit_costs])
        order = np.lexsort((dear, heavy))
        lowest = np.minimum.accumulate(dear[order])
        order = order[np.concatenate([[True], lowest[1:] < lowest[:-1]])]
        heavy, dear = heavy[order], dear[order]
        history.append(((order % size).astype(np.int32), (order // size).astype(np.int8)))
        if len(heavy) > most:
            return _trace_hull(costs, weights)
    options = np.zeros((len(heavy), len(history)), dtype=np.int8)
    states = np.arange(len(heavy))
    for unit in reversed(range(len(history))):
        parent, taken = history[unit]
        options[:, unit] = taken[states]
        states = parent[states]
    return Frontier(heavy, dear, options, complete=True)


def _trace_hull(costs: Sequence[Sequence[float]], weights: Sequence[Sequence[float]]) -> Frontier:
    """The frontier's lower convex hull: the lightest recipe, then every hull step in turn."""
    start, steps = hull_steps(costs, weights)
    options = np.tile(np.array(start, dtype=np.int8), (len(steps) + 1, 1))
    for point, (_, unit, _, after) in enumerate(steps, start=1):
        options[point:, unit] = after
    heavier = [weights[unit][after] - weights[unit][before] for _, unit, before, after in steps]
    dearer = [costs[unit][after] - costs[unit][before] for _, unit, before, after in steps]
    lightest = sum(of_unit[option] for of_unit, option in zip(weights, start, strict=True))
    dearest = sum(of_unit[option] for of_unit, option in zip(costs, start, strict=True))
    return Frontier(
        np.cumsum([lightest, *heavier]), np.cumsum([dearest, *dearer]), options, complete=False
    )
