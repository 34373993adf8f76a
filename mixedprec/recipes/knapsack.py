"""Choosing one option for every unit at the least total cost within a limit on total weight.

This is the multiple-choice knapsack. Its Lagrangian relaxation is solved at once (each unit's lower
hull, steps in the order of what they give for their weight); the bound it leaves says which options
can still be part of a best choice, and a dynamic program over the few units that have more than one
such option finds it, dropping every partial choice that is dominated or cannot beat the best known.
(After Sinha and Zoltners, 1979, for the relaxation, and Pisinger, 1995, for the core.)

scipy's `milp` would do, but costs 1.2 s and 67 MiB to import and gives no frontier; on 10,000 units
its solver, HiGHS, was not done in a minute. Tests hold the choices here against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
History = list[tuple[NDArray[np.int32], NDArray[np.int8]]]
# What it gives for its weight, the unit, the option before, the option after.
Step = tuple[float, int, int, int]

# Partial choices held at once; a gap is reported where they did not suffice.
MOST_STATES = 2_000_000
ROUNDING = 1e-12


@dataclass(frozen=True)
class Choice:
    """An option for every unit, as indices. gap: how far at most the total cost is above the least
    possible one; 0 where that is known to be reached."""

    options: tuple[int, ...]
    gap: float


def choose_options(
    costs: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], limit: float
) -> Choice | None:
    """One option a unit with Σ weight ≤ limit and the least Σ cost; None where nothing fits.

    costs, weights: by unit, then by option. Among choices of equal cost the lightest.
    """
    count = len(costs)
    width = max(map(len, costs), default=1)
    cost, weight = np.full((count, width), np.inf), np.full((count, width), np.inf)
    for unit, (c, w) in enumerate(zip(costs, weights, strict=True)):
        cost[unit, : len(c)], weight[unit, : len(w)] = c, w
    if weight.min(1, initial=np.inf).sum() > limit:
        return None
    multiplier, greedy = _relax(costs, weights, limit)
    every = np.arange(count)
    with np.errstate(invalid="ignore"):
        priced = np.where(np.isinf(cost), np.inf, cost + multiplier * weight)
    default = priced.argmin(1)
    reduced = priced - priced[every, default][:, None]
    # Where everything fits, the limit may be infinite.
    charged = multiplier * limit if multiplier else 0.0
    bound = float(priced[every, default].sum() - charged)
    best = float(cost[every, greedy].sum())
    slack = ROUNDING * (abs(best) + abs(bound) + abs(charged))
    if best - bound <= slack:
        return Choice(tuple(map(int, greedy)), 0.0)
    found, proved = _search_core(cost, weight, limit, reduced, default, bound, greedy, slack)
    total = float(cost[every, found].sum())
    return Choice(tuple(map(int, found)), 0.0 if proved else max(0.0, total - bound))


def _hull(cost: Sequence[float], weight: Sequence[float]) -> list[int]:
    """The options on a unit's lower hull, from the lightest on: each step down in cost for more
    weight gives less for its weight than the one before."""
    hull: list[int] = []
    for option in sorted(range(len(cost)), key=lambda o: (weight[o], cost[o])):
        if hull and cost[option] >= cost[hull[-1]]:
            continue
        while len(hull) >= 2:
            before, last = hull[-2], hull[-1]
            gained = (cost[before] - cost[last]) * (weight[option] - weight[last])
            if gained > (cost[last] - cost[option]) * (weight[last] - weight[before]):
                break
            hull.pop()
        hull.append(option)
    return hull


def hull_steps(
    costs: Sequence[Sequence[float]], weights: Sequence[Sequence[float]]
) -> tuple[list[int], list[Step]]:
    """The lightest useful option of every unit, and the steps along the units' hulls from there, in
    the order of what they give for their weight."""
    hulls = [_hull(cost, weight) for cost, weight in zip(costs, weights, strict=True)]
    steps: list[Step] = []
    for u, hull in enumerate(hulls):
        worth = float("inf")
        for a, b in pairwise(hull):
            # Rounding must not put a unit's later step before its earlier one.
            worth = min(worth, (costs[u][a] - costs[u][b]) / (weights[u][b] - weights[u][a]))
            steps.append((worth, u, a, b))
    return [hull[0] for hull in hulls], sorted(steps, key=lambda step: -step[0])


def _relax(
    costs: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], limit: float
) -> tuple[float, NDArray[np.intp]]:
    """The best multiplier of the Lagrangian relaxation, and a choice that fits: steps along the
    hulls in order, past those that do not fit."""
    start, steps = hull_steps(costs, weights)
    chosen = np.array(start, dtype=np.intp)
    used = float(sum(weights[unit][option] for unit, option in enumerate(start)))
    multiplier = 0.0
    for worth, unit, before, after in steps:
        more = weights[unit][after] - weights[unit][before]
        if used + more > limit:
            multiplier = multiplier or worth
        elif chosen[unit] == before:
            chosen[unit], used = after, used + more
    return multiplier, chosen


def _search_core(
    cost: Floats,
    weight: Floats,
    limit: float,
    reduced: Floats,
    default: NDArray[np.intp],
    bound: float,
    greedy: NDArray[np.intp],
    slack: float,
) -> tuple[NDArray[np.intp], bool]:
    """The best choice, and whether it was proved to be: a dynamic program over units in order of
    their cheapest departure from `default`, the relaxation's choice."""
    every = np.arange(len(cost))
    best, found = float(cost[every, greedy].sum()), greedy
    lightest = float(weight[every, greedy].sum())
    departure = np.where(reduced > 0, reduced, np.inf)
    ties = (reduced == 0).sum(1) > 1
    departure = np.where(ties, 0.0, departure.min(1))
    order = np.argsort(departure, kind="stable")
    # A state is a departure from `default` so far: its weight and cost over default's, and `above`,
    # the reduced costs paid: no completion of it costs less than bound + above.
    room = limit - weight[every, default].sum()
    floor = cost[every, default].sum()
    heavier, dearer, above = np.zeros(1), np.zeros(1), np.zeros(1)
    history: History = []
    reached: list[int] = []
    for unit in order:
        if bound + departure[unit] > best + slack:
            break
        usable = np.flatnonzero(bound + reduced[unit] <= best + slack)
        base = default[unit]
        parts = [
            (
                heavier + weight[unit, option] - weight[unit, base],
                dearer + cost[unit, option] - cost[unit, base],
                above + reduced[unit, option],
            )
            for option in usable
        ]
        size = len(heavier)
        heavier, dearer, above = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        parent = np.tile(np.arange(size, dtype=np.int32), len(usable))
        taken = np.repeat(usable.astype(np.int8), size)
        kept = np.flatnonzero(bound + above <= best + slack)
        ranked = kept[np.lexsort((dearer[kept], heavier[kept]))]
        # Of states in the order of weight only those that cost less than all lighter ones matter.
        lowest = np.minimum.accumulate(dearer[ranked])
        ranked = ranked[np.concatenate([[True], lowest[1:] < lowest[:-1]])]
        heavier, dearer, above = heavier[ranked], dearer[ranked], above[ranked]
        history.append((parent[ranked], taken[ranked]))
        reached.append(int(unit))
        fitting = np.flatnonzero(heavier <= room)
        if len(fitting):
            state = int(fitting[dearer[fitting].argmin()])
            total, load = float(floor + dearer[state]), float(limit - room + heavier[state])
            if total < best - slack or (total <= best + slack and load < lightest):
                best, lightest = min(best, total), load
                found = _trace(history, reached, state, default)
        if len(heavier) > MOST_STATES:
            return found, False
    return found, True


def _trace(
    history: History, reached: list[int], state: int, default: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The choice that a state stands for."""
    chosen = default.copy()
    for (parent, taken), unit in zip(reversed(history), reversed(reached), strict=True):
        chosen[unit] = taken[state]
        state = int(parent[state])
    return chosen
