"""Choices of a worst and a best where some numbers are none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.mixedprec.ranking import as_cost, least_at
from awqscope.mixedprec.recipes.baselines import RECIPE, Contestant, rank_contest

NUMBERS = st.lists(st.sampled_from([math.nan, math.inf, 0.0, 1.0, 2.0]), min_size=1)


@given(NUMBERS)
def test_no_number_is_chosen_as_least(losses: list[float]) -> None:
    numbers = [loss for loss in losses if math.isfinite(loss)]
    if not numbers:
        with pytest.raises(FloatingPointError):
            least_at(losses)
        return
    assert losses[least_at(losses)] == min(numbers)
    assert min(numbers) not in losses[: least_at(losses)]


@given(NUMBERS)
def test_no_number_is_the_largest_cost(values: list[float]) -> None:
    ranked = sorted(values, key=lambda value: -as_cost(value))
    known = [value for value in ranked if math.isfinite(value)]
    assert known == sorted(known, reverse=True)
    assert ranked[len(ranked) - len(known) :] == known
    assert as_cost(None) == math.inf


def test_a_rival_without_a_number_is_last() -> None:
    rivals = [
        Contestant(name, 1, None, (kl, kl, kl), None)
        for name, kl in (("none", math.nan), ("good", 0.1), ("bad", 0.2), (RECIPE, 0.3))
    ]
    assert [each.name for each in rank_contest(rivals)] == [RECIPE, "good", "bad", "none"]
