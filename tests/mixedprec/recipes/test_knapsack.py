"""One option a unit at the least cost within a weight: against enumeration, and a stock solver."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from awqscope.mixedprec.recipes import knapsack
from awqscope.mixedprec.recipes.frontier import outline_frontier, trace_frontier
from awqscope.mixedprec.recipes.knapsack import choose_options

Table = list[list[float]]


@st.composite
def instances(draw: st.DrawFn, most: int = 6) -> tuple[Table, Table]:
    """Costs and weights of a few units with up to three options; whole numbers, so with ties."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=most))
    number = st.integers(0, 9).map(float)
    costs = [draw(st.lists(number, min_size=n, max_size=n)) for n in sizes]
    weights = [draw(st.lists(number, min_size=n, max_size=n)) for n in sizes]
    return costs, weights


def enumerate_all(costs: Table, weights: Table) -> list[tuple[float, float]]:
    """(weight, cost) of every choice."""
    return [
        (
            sum(weights[unit][option] for unit, option in enumerate(chosen)),
            sum(costs[unit][option] for unit, option in enumerate(chosen)),
        )
        for chosen in product(*[range(len(options)) for options in costs])
    ]


@settings(max_examples=300, deadline=None)
@given(instances(), st.integers(0, 40))
def test_choice_is_the_best_of_all(instance: tuple[Table, Table], limit: int) -> None:
    costs, weights = instance
    every = enumerate_all(costs, weights)
    fitting = [(cost, weight) for weight, cost in every if weight <= limit]
    choice = choose_options(costs, weights, limit)
    if not fitting:
        assert choice is None
        return
    assert choice is not None and choice.gap == 0
    picked = list(enumerate(choice.options))
    cost = sum(costs[unit][option] for unit, option in picked)
    # The least cost, and of those the least weight.
    assert (cost, sum(weights[unit][option] for unit, option in picked)) == min(fitting)


@settings(max_examples=100, deadline=None)
@given(instances(most=5))
def test_without_a_limit_every_unit_is_at_its_cheapest(instance: tuple[Table, Table]) -> None:
    costs, weights = instance
    choice = choose_options(costs, weights, float("inf"))
    assert choice is not None and choice.gap == 0
    picked = [costs[unit][option] for unit, option in enumerate(choice.options)]
    assert picked == [min(options) for options in costs]


@settings(max_examples=100, deadline=None)
@given(instances(), st.integers(0, 40), st.sampled_from([1e-9, 1e9]))
def test_the_gap_holds_where_states_run_out(
    instance: tuple[Table, Table], limit: int, scale: float
) -> None:
    costs, weights = instance
    heavy = [[weight * scale for weight in options] for options in weights]
    every = enumerate_all(costs, weights)
    fitting = [cost for weight, cost in every if weight <= limit]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "MOST_STATES", 1)
        choice = choose_options(costs, heavy, limit * scale * (1 + 1e-9))
    if not fitting:
        assert choice is None
        return
    assert choice is not None
    picked = list(enumerate(choice.options))
    assert sum(weights[unit][option] for unit, option in picked) <= limit
    found = sum(costs[unit][option] for unit, option in picked)
    assert found - choice.gap <= min(fitting) + 1e-9
    if choice.gap == 0:
        assert found == min(fitting)


@settings(max_examples=200, deadline=None)
@given(instances())
def test_frontier_is_all_of_it(instance: tuple[Table, Table]) -> None:
    costs, weights = instance
    every = sorted(enumerate_all(costs, weights))
    expected, lowest = [], float("inf")
    for weight, cost in every:
        if cost < lowest:
            expected.append((weight, cost))
            lowest = cost
    frontier = trace_frontier(costs, weights)
    assert frontier.complete
    assert list(zip(frontier.weights, frontier.costs, strict=True)) == expected
    for (weight, cost), options in zip(expected, frontier.options.tolist(), strict=True):
        picked = list(enumerate(options))
        assert sum(weights[unit][option] for unit, option in picked) == weight
        assert sum(costs[unit][option] for unit, option in picked) == cost


@settings(max_examples=100, deadline=None)
@given(instances())
def test_hull_points_are_on_the_frontier(instance: tuple[Table, Table]) -> None:
    costs, weights = instance
    whole = trace_frontier(costs, weights)
    hull = trace_frontier(costs, weights, cells=0)
    assert not hull.complete
    known = set(zip(whole.weights, whole.costs, strict=True))
    found = list(zip(hull.weights, hull.costs, strict=True))
    assert set(found) <= known
    assert {min(known), max(known)} <= set(found)
    for (weight, cost), options in zip(found, hull.options.tolist(), strict=True):
        picked = list(enumerate(options))
        assert sum(weights[unit][option] for unit, option in picked) == weight
        assert sum(costs[unit][option] for unit, option in picked) == cost
    # No choice lies below the line that joins them.
    sizes, least = outline_frontier(costs, weights)
    assert (list(sizes), list(least)) == (list(hull.weights), list(hull.costs))
    for weight, cost in enumerate_all(costs, weights):
        assert cost >= np.interp(weight, sizes, least) - 1e-9


@settings(max_examples=100, deadline=None)
@given(instances(), st.integers(2, 5), st.booleans())
def test_a_thin_frontier_is_of_the_whole_one(
    instance: tuple[Table, Table], most: int, hull: bool
) -> None:
    costs, weights = instance
    whole = trace_frontier(costs, weights, cells=0 if hull else 10**6)
    thin = trace_frontier(costs, weights, most, cells=0 if hull else 10**6)
    assert len(thin.weights) == min(most, len(whole.weights))
    known = dict(zip(whole.weights, whole.options.tolist(), strict=True))
    for weight, options in zip(thin.weights, thin.options.tolist(), strict=True):
        assert known[weight] == options
    assert (thin.weights[0], thin.weights[-1]) == (whole.weights[0], whole.weights[-1])


def model_like(units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """KL and bytes at 4, 8 and 16 bits of units of four shapes, unevenly damaged."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([512 * 256, 256 * 256, 1280 * 256, 640 * 256], units)
    damage = rng.lognormal(-8, 1.2, units)
    costs = np.stack([damage, damage * 0.004 * rng.lognormal(0, 0.3, units), 0 * damage], axis=1)
    return costs, np.stack([sizes * 0.52, sizes * 1.02, sizes * 2.0], axis=1).round()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_equals_a_mixed_integer_solver(share: float) -> None:
    """HiGHS, asked for the last digit, on a model of 24 blocks."""
    costs, weights = model_like(96, seed=1)
    least, most = weights[:, 0].sum(), weights[:, 2].sum()
    limit = least + share * (most - least)
    choice = choose_options(costs.tolist(), weights.tolist(), limit)
    assert choice is not None and choice.gap == 0
    units, options = costs.shape
    one_each = np.kron(np.eye(units), np.ones(options))
    found = milp(
        costs.ravel() / costs.sum(),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(weights.ravel()[None] / limit, -np.inf, 1),
        ],
        integrality=np.ones(costs.size),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    ours = costs[np.arange(units), list(choice.options)].sum()
    assert ours / costs.sum() == pytest.approx(found.fun, rel=1e-9)


def test_ten_thousand_units_are_solved_exactly() -> None:
    costs, weights = model_like(10_000, seed=2)
    choice = choose_options(costs.tolist(), weights.tolist(), 1.1 * weights[:, 0].sum())
    assert choice is not None and choice.gap == 0


def test_of_equal_costs_the_lightest_off_the_hull() -> None:
    """(7, 26) and (10, 23) cost the same; the second is lighter, and off the second unit's hull."""
    costs, weights = [[28.0, 7, 10], [2.0, 23, 26]], [[13.0, 9, 4], [30.0, 14, 11]]
    choice = choose_options(costs, weights, 21)
    assert choice is not None and choice.options == (2, 1)
