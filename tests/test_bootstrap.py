"""Intervals: they cover, they are paired, and the same seed gives the same ones."""

import numpy as np
import pytest

from diagnose.bootstrap import Resampler


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


def test_same_seed_same_interval() -> None:
    values = np.arange(20.0)
    assert Resampler(20, 3).mean(values) == Resampler(20, 3).mean(values)
    assert Resampler(20, 3).mean(values) != Resampler(20, 4).mean(values)
    assert Resampler(20, 3).ratio(values, 2 * values).value == 0.5
