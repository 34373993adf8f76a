"""Means over a text of what was measured on some of its windows."""

import numpy as np
import pytest

from awqscope.diagnose.statistics.bootstrap import Floats, Resampler
from awqscope.diagnose.statistics.survey import Survey

WINDOWS = 64


def planted(seed: int, noise: float = 0.2) -> tuple[Floats, Floats]:
    """A control by window, and values that follow it up to `noise`, both skewed as KL is."""
    generator = np.random.default_rng(seed)
    control = np.exp(generator.normal(0, 0.4, WINDOWS))
    return control, 0.3 * control * np.exp(generator.normal(0, noise, WINDOWS)) + 0.05


def choose(seed: int, count: int) -> np.ndarray:
    mask = np.zeros(WINDOWS, dtype=bool)
    mask[np.random.default_rng([9, seed]).permutation(WINDOWS)[:count]] = True
    return mask


def test_where_every_window_was_measured_nothing_changes() -> None:
    control, values = planted(0)
    resampler = Resampler(WINDOWS, 3)
    survey = Survey(resampler, np.ones(WINDOWS, dtype=bool), 3)
    assert survey.mean(values, control) == resampler.mean(values)
    assert survey.ppl_difference(control, values, control) == resampler.ppl_difference(
        control, values
    )
    value, drawn = survey.of_text(values, control)
    assert value == survey.level(values, control) == values.mean()
    assert (drawn == value).all() and survey.narrows(values, control) == 1


@pytest.mark.parametrize("count", [8, 16, 40])
def test_the_mean_is_that_of_a_least_squares_line(count: int) -> None:
    control, values = planted(1)
    mask = choose(1, count)
    line = np.polynomial.Polynomial.fit(control[mask], values[mask], 1)
    survey = Survey(Resampler(WINDOWS, 0), mask, 0)
    spoilt = np.where(mask, values, np.nan)
    assert survey.level(spoilt, control) == pytest.approx(float(line(control.mean())), rel=1e-12)
    assert survey.mean(spoilt, control).value == survey.level(spoilt, control)


def test_a_control_that_explains_nothing_is_left_out() -> None:
    _, values = planted(2)
    other = np.random.default_rng(5).normal(size=WINDOWS)
    mask = choose(2, 12)
    survey = Survey(Resampler(WINDOWS, 0), mask, 0)
    assert survey.level(values, other) == pytest.approx(values[mask].mean(), rel=1e-12)
    assert survey.narrows(values, other) == 1
    constant = np.ones(WINDOWS)
    assert survey.level(values, constant) == pytest.approx(values[mask].mean(), rel=1e-12)


def test_values_that_are_no_numbers_give_none() -> None:
    control, values = planted(3)
    mask = choose(3, 8)
    values[np.flatnonzero(mask)[0]] = np.nan
    found = Survey(Resampler(WINDOWS, 0), mask, 0).mean(values, control)
    assert np.isnan([found.value, found.low, found.high]).all()


@pytest.mark.parametrize("count", [8, 16, 32])
@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
def test_intervals_hold_the_mean_of_the_whole_text(count: int, noise: float) -> None:
    """Planted texts, each sampled once: how often the interval holds the mean of all its windows,
    and how often what the text may be does, at 95%."""
    trials = 250
    held, within = 0, 0
    for trial in range(trials):
        control, values = planted(100 + trial, noise)
        survey = Survey(Resampler(WINDOWS, trial), choose(trial, count), trial)
        found = survey.mean(values, control)
        held += found.low <= values.mean() <= found.high
        _, drawn = survey.of_text(values, control)
        low, high = np.quantile(drawn, [0.025, 0.975])
        within += low <= values.mean() <= high
    # Three standard errors of a share of 250 are 4%; few windows of skewed values hold too little.
    assert held / trials >= 0.91
    assert 0.85 <= within / trials <= 0.99


def test_a_close_control_narrows_the_interval() -> None:
    narrowed, widths = [], []
    for trial in range(50):
        control, values = planted(trial, noise=0.05)
        survey = Survey(Resampler(WINDOWS, trial), choose(trial, 16), trial)
        narrowed.append(survey.narrows(values, control))
        sampled = survey.of_text(values, control)[1].std()
        alone = survey.of_text(values, np.ones(WINDOWS))[1].std()
        widths.append(alone / sampled)
    assert np.median(narrowed) > 3
    assert np.median(widths) > 3


def test_a_ppl_difference_follows_its_control() -> None:
    generator = np.random.default_rng(0)
    reference = 3 + generator.normal(0, 0.3, WINDOWS)
    uniform = reference + np.abs(generator.normal(0.1, 0.05, WINDOWS))
    candidate = reference + 0.4 * (uniform - reference) + generator.normal(0, 0.001, WINDOWS)
    mask = choose(4, 8)
    survey = Survey(Resampler(WINDOWS, 0), mask, 0)
    spoilt = np.where(mask, candidate, np.nan)
    found = survey.ppl_difference(reference, spoilt, uniform)
    true = np.exp(candidate.mean()) - np.exp(reference.mean())
    assert found.value == pytest.approx(true, rel=0.02)
    assert found.low < true < found.high
    plain = (candidate - reference)[mask].mean()
    off = np.exp(reference.mean() + plain) - np.exp(reference.mean())
    assert abs(found.value - true) < abs(off - true)
