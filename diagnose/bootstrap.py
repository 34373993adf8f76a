"""Intervals by a bootstrap over windows: tokens of one window depend on each other, windows hardly.

All quantities of a run share one set of resamples, so that their differences are paired too.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95% interval."""

    value: float
    low: float
    high: float


class Resampler:
    """Resamples of `windows` windows with replacement, drawn once from `seed`."""

    def __init__(self, windows: int, seed: int):
        generator = np.random.default_rng(seed)
        counts = generator.multinomial(windows, np.full(windows, 1 / windows), size=RESAMPLES)
        self._weights = counts / windows

    def means(self, by_window: Floats) -> Floats:
        """Means [RESAMPLES] of values [windows] under each resample."""
        return self._weights @ by_window

    def mean(self, by_window: Floats) -> Estimate:
        """The mean over windows with its interval."""
        return bounded(float(by_window.mean()), self.means(by_window))

    def ppl_difference(self, reference: Floats, candidate: Floats) -> Estimate:
        """PPL(candidate) − PPL(reference), from mean token NLL by window, paired."""
        value = math.exp(candidate.mean()) - math.exp(reference.mean())
        return bounded(value, np.exp(self.means(candidate)) - np.exp(self.means(reference)))

    def ratio(self, part: Floats, whole: Floats) -> Estimate:
        """mean(part) / mean(whole), paired; NaN where the whole is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.divide(part.mean(), whole.mean()))
            return bounded(value, self.means(part) / self.means(whole))


def bounded(value: float, resampled: Floats) -> Estimate:
    """`value` with the percentile interval of its resampled counterparts."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    """The value and its bounds, as files keep them."""
    return estimate.value, estimate.low, estimate.high
