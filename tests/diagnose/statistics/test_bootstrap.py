"""Intervals: they cover, they are paired, and the same seed gives the same ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from awqscope.diagnose.statistics.bootstrap import (
    RESAMPLES,
    Resampler,
    bounded,
    expanded_tail,
    perplexity,
    student_quantile,
)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        sample = generator.normal(1.0, 2.0, size=40)
        estimate = Resampler(40, trial).mean(sample)
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


def test_paired_differences_are_far_tighter_than_their_parts() -> None:
    generator = np.random.default_rng(1)
    reference = 4 + generator.normal(0, 0.5, size=50)
    candidate = reference + 0.01 + generator.normal(0, 0.002, size=50)
    resampler = Resampler(50, 0)
    paired = resampler.ppl_difference(reference, candidate)
    assert paired.low > 0
    alone = np.exp(resampler.means(candidate))
    assert paired.high - paired.low < 0.1 * (alone.max() - alone.min())
    assert paired.value == pytest.approx(np.exp(candidate.mean()) - np.exp(reference.mean()))


def test_perplexity_is_the_same_on_every_processor() -> None:
    """Python's exp, to the last bit; numpy's is another where its vectors are wide enough."""
    for nll in np.random.default_rng(3).uniform(1, 8, size=(300, 5)):
        assert perplexity(nll) == math.exp(nll.mean())


def test_same_seed_same_interval() -> None:
    values = np.arange(20.0)
    assert Resampler(20, 3).mean(values) == Resampler(20, 3).mean(values)
    assert Resampler(20, 3).mean(values) != Resampler(20, 4).mean(values)
    assert Resampler(20, 3).ratio(values, 2 * values).value == 0.5


@settings(max_examples=30, deadline=None)
@given(
    windows=st.integers(1, 9),
    tokens=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99, 0.999, 1.0]),
    alike=st.booleans(),
    seed=st.integers(0, 99),
)
def test_quantiles_are_those_of_the_resampled_tokens(
    windows: int, tokens: int, share: float, alike: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).exponential(size=(windows, tokens)).astype(np.float32)
    if alike:
        values = values.round()
    found = Resampler(windows, seed).quantiles(values, share)
    counts = np.random.default_rng(seed).multinomial(
        windows, np.full(windows, 1 / windows), size=RESAMPLES
    )
    for number in range(0, RESAMPLES, 400):
        drawn = np.repeat(values.astype(float), counts[number], axis=0)
        assert found[number] == pytest.approx(np.quantile(drawn, share))


def test_students_quantile_is_scipys() -> None:
    for freedom in (1, 2, 3, 4, 7, 30, 39, 500):
        for level in (0.9, 0.975, 0.999):
            assert student_quantile(level, freedom) == pytest.approx(
                stats.t.ppf(level, freedom), rel=1e-9
            )


def test_expanded_intervals_of_few_windows_cover_what_plain_ones_do_not() -> None:
    generator = np.random.default_rng(2)
    tail = expanded_tail(8)
    missed = {"plain": 0, "expanded": 0}
    for trial in range(600):
        sample = generator.normal(1.0, 2.0, size=8)
        means = Resampler(8, trial).means(sample)
        for name, found in (
            ("plain", bounded(0.0, means)),
            ("expanded", bounded(0.0, means, tail, tail)),
        ):
            missed[name] += not found.low <= 1.0 <= found.high
    assert missed["plain"] / 600 > 0.075
    assert 0.025 < missed["expanded"] / 600 < 0.075
    assert expanded_tail(100_000) == pytest.approx(0.025, abs=1e-4)
