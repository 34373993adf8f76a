"""McNemar's exact test, the score interval and Holm's procedure, against scipy, against likelihoods
that are maximized by search, and by simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from awqscope.diagnose.statistics.bootstrap import TAIL
from awqscope.diagnose.statistics.flips import (
    Flips,
    adjust,
    bound_drop,
    bound_mean,
    mcnemar,
    mean_chance,
    score,
    step_down,
    upper_tail,
)

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 300))
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def make(counts: tuple[int, int, int]) -> Flips:
    regressed, improved, same = counts
    return Flips(regressed + improved + same, regressed, improved)


@settings(max_examples=60)
@given(st.integers(0, 400), st.integers(0, 400))
def test_p_is_that_of_scipy(regressed: int, improved: int) -> None:
    turned = regressed + improved
    found = mcnemar(Flips(1000, regressed, improved))
    expected = stats.binomtest(regressed, turned, 0.5).pvalue if turned else 1.0
    assert found == pytest.approx(expected, rel=1e-9)
    assert upper_tail(regressed, turned) == pytest.approx(
        stats.binom.sf(regressed - 1, turned, 0.5), rel=1e-9
    )


def restricted_share(flips: Flips, drop: float) -> float:
    """The likeliest share of improved samples where so many more regress, by search."""
    b, c, n = flips.regressed, flips.improved, flips.samples

    def cost(share: float) -> float:
        parts = [(b, share + drop), (c, share), (n - b - c, 1 - 2 * share - drop)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    low, high = max(0.0, -drop), (1 - drop) / 2
    found = optimize.minimize_scalar(
        cost, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x)


@settings(max_examples=40)
@given(COUNTS, st.floats(-0.9, 0.9))
def test_the_score_is_that_of_the_likeliest_shares(
    counts: tuple[int, int, int], drop: float
) -> None:
    flips = make(counts)
    share = restricted_share(flips, drop)
    variance = flips.samples * (2 * share + drop * (1 - drop))
    if variance < 1e-3 * flips.samples:
        return
    above = flips.regressed - flips.improved - flips.samples * drop
    assert score(flips, drop) == pytest.approx(above / math.sqrt(variance), rel=2e-3, abs=2e-3)


@given(COUNTS)
def test_bounds_are_where_the_score_is_the_quantile(counts: tuple[int, int, int]) -> None:
    flips = make(counts)
    found = bound_drop(flips)
    assert -1 <= found.low <= found.value <= found.high <= 1
    steps = stats.norm.ppf(1 - TAIL)
    turned = flips.regressed + flips.improved
    if upper_tail(flips.regressed, turned) <= TAIL:
        assert score(flips, found.low) == pytest.approx(steps, abs=1e-6)
    if found.high < 1 and upper_tail(flips.improved, turned) <= TAIL:
        assert score(flips, found.high) == pytest.approx(-steps, abs=1e-6)
    mirrored = bound_drop(Flips(flips.samples, flips.improved, flips.regressed))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


@given(COUNTS, st.sampled_from([TAIL, TAIL / 3, 0.2]))
def test_no_drop_is_sure_that_the_exact_test_does_not_call_sure(
    counts: tuple[int, int, int], tail: float
) -> None:
    flips = make(counts)
    found = bound_drop(flips, tail, tail)
    if mcnemar(flips) > 2 * tail:
        assert found.low <= 0 <= found.high


def test_no_sample_that_turned_still_has_an_interval() -> None:
    steps = stats.norm.ppf(1 - TAIL)
    found = bound_drop(Flips(400, 0, 0))
    assert found.high == pytest.approx(steps**2 / (400 + steps**2), rel=1e-6)
    assert found.low == pytest.approx(-found.high)


def holm(chances: list[float]) -> list[float]:
    """Holm's adjusted p, by its definition: the largest of (m − j + 1)·p(j) up to each rank."""
    ranked = sorted(chances)
    return [
        min(1.0, max((len(ranked) - j) * ranked[j] for j in range(ranked.index(p) + 1)))
        for p in chances
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8, unique=True))
def test_adjusted_p_is_holms(chances: list[float]) -> None:
    assert adjust(chances) == pytest.approx(holm(chances))


@given(CHANCES)
def test_equal_p_are_adjusted_alike_and_never_smaller(chances: list[float]) -> None:
    found = adjust([*chances, chances[0]])
    assert found[-1] == found[0]
    assert all(a >= p for a, p in zip(found, [*chances, chances[0]], strict=True))


@given(CHANCES, st.sampled_from([0.025, 0.2, 0.7]))
def test_the_tail_rejects_what_holm_rejects(chances: list[float], tail: float) -> None:
    def reject(share: float) -> int:
        return sum(p <= share for p in chances)

    share = step_down(len(chances), reject, tail)
    ranked = sorted(chances)
    rejected = 0
    while rejected < len(ranked) and ranked[rejected] <= tail / (len(ranked) - rejected):
        rejected += 1
    assert reject(share) == rejected


@settings(max_examples=40)
@given(st.lists(st.floats(-2, 2), min_size=2, max_size=40))
def test_means_are_students(values: list[float]) -> None:
    found = bound_mean(values)
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    spread = np.std(values, ddof=1)
    if spread < 1e-6:
        return
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert mean_chance(values) == pytest.approx(
        stats.ttest_1samp(values, 0).pvalue, rel=1e-5, abs=1e-9
    )


def test_means_of_many_take_the_normal_distribution() -> None:
    values = list(np.random.default_rng(0).normal(0.03, 1, 5000))
    found = bound_mean(values)
    expected = stats.t.interval(0.95, 4999, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-2)
    assert mean_chance(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=1e-3)


def test_a_single_value_and_equal_ones() -> None:
    assert bound_mean([0.5]).high == math.inf
    assert mean_chance([0.5]) == mean_chance([0.0, 0.0, 0.0]) == 1.0
    assert mean_chance([0.5, 0.5, 0.5]) == 0.0


@pytest.mark.parametrize(("samples", "turned"), [(60, 0.2), (400, 0.1)])
def test_a_drop_at_the_limit_is_rarely_decided(samples: int, turned: float) -> None:
    """Either decision about a true drop that is the limit is wrong: nominally 2.5% each."""
    limit = 0.02
    shares = [(turned + limit) / 2, (turned - limit) / 2, 1 - turned]
    drawn = np.random.default_rng(samples).multinomial(samples, shares, size=4000)
    count: Callable[[float], float] = lambda wanted: float(  # noqa: E731
        np.mean([wanted * score(Flips(samples, b, c), limit) > 1.959964 for b, c, _ in drawn])
    )
    assert 0.005 < count(1) < 0.04
    assert 0.005 < count(-1) < 0.04
