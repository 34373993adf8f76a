"""Means over a text of what was measured on some of its windows only.

The windows are drawn at random, so their mean is one of the text's. What is known of every window
narrows it: where a window's value follows that of a control, such as the uniform model's KL, the
mean is moved along their regression to where the control's mean over the whole text is (the
regression estimator of survey sampling: W. G. Cochran, Sampling Techniques, 3rd ed., chapter 7).
"""

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from awqscope.diagnose.statistics.bootstrap import (
    RESAMPLES,
    TAIL,
    Estimate,
    Floats,
    Resampler,
    bounded,
    expanded_tail,
    student_quantile,
)

# From this squared correlation on, a control takes more off the variance than its slope, which a
# few windows tell badly, adds to it.
LEAST_EXPLAINED = 0.5


@dataclass(frozen=True)
class _Drawn:
    """A mean with its resampled counterparts [RESAMPLES], and whether a slope was fitted."""

    value: float
    means: Floats
    fitted: bool


class Survey:
    """Means over all windows of values that were measured on `measured` [windows], a mask.

    Values are given for all windows; those that were not measured are not looked at. Where every
    window was, all results are those of `resampler`."""

    def __init__(self, resampler: Resampler, measured: NDArray[np.bool_], seed: int):
        self._all = resampler
        self._chosen = np.flatnonzero(measured)
        self.windows, self.count = len(measured), len(self._chosen)
        self.is_whole = self.count == self.windows
        if not self.is_whole:
            generator = np.random.default_rng([seed, self.count])
            even = np.full(self.count, 1 / self.count)
            drawn = generator.multinomial(self.count, even, size=RESAMPLES)
            self._weights = drawn / self.count

    def mean(self, values: Floats, control: Floats) -> Estimate:
        """The mean with its interval for texts like this one. control: known for every window."""
        if self.is_whole:
            return self._all.mean(values)
        drawn = self._draw(values, control, self._all.means(control))
        return self._bound(drawn.value, drawn.means, drawn.fitted)

    def level(self, values: Floats, control: Floats) -> float:
        """The mean alone."""
        if self.is_whole:
            return float(values.mean())
        return self._draw(values, control, float(control.mean())).value

    def ppl_difference(self, reference: Floats, candidate: Floats, control: Floats) -> Estimate:
        """PPL(candidate) − PPL(reference), from mean token NLL by window. The reference's and the
        control's, of another model, are known for every window."""
        if self.is_whole:
            return self._all.ppl_difference(reference, candidate)
        near, base = control - reference, float(reference.mean())
        drawn = self._draw(candidate - reference, near, self._all.means(near))
        bases = self._all.means(reference)
        value = math.exp(base + drawn.value) - math.exp(base)
        return self._bound(value, np.exp(bases + drawn.means) - np.exp(bases), drawn.fitted)

    def of_text(self, values: Floats, control: Floats) -> tuple[float, Floats]:
        """The mean, and what it may be on this very text [RESAMPLES]: the same where every window
        was measured."""
        if self.is_whole:
            return float(values.mean()), np.full(RESAMPLES, values.mean())
        drawn = self._draw(values, control, float(control.mean()))
        left = math.sqrt(1 - self.count / self.windows) * _widening(self.count - drawn.fitted)
        return drawn.value, drawn.value + left * (drawn.means - drawn.value)

    def narrows(self, values: Floats, control: Floats) -> float:
        """How many times narrower the control makes what the mean may be on this text."""
        if self.is_whole:
            return 1.0
        plain = (self._weights @ values[self._chosen]).std()
        drawn = self._draw(values, control, float(control.mean())).means.std()
        return float(plain / drawn) if drawn > 0 else 1.0

    def _draw(self, values: Floats, control: Floats, levels: Floats | float) -> _Drawn:
        """The mean where the control's mean is that of all windows, and resampled ones where it is
        `levels`."""
        y, x = values[self._chosen], control[self._chosen]
        value, means, at = float(y.mean()), self._weights @ y, self._weights @ x
        both = float(((x - x.mean()) * (y - y.mean())).sum())
        squares = float(((x - x.mean()) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
        if not both**2 >= LEAST_EXPLAINED * squares[0] * squares[1] > 0:
            return _Drawn(value, means, False)
        slope = both / squares[0]
        spread = self._weights @ (x - x.mean()) ** 2 - (at - x.mean()) ** 2
        shared = self._weights @ ((x - x.mean()) * y) - (at - x.mean()) * means
        # A resample of one window alone has no slope.
        usable = spread > 1e-9 * squares[0] / self.count
        slopes = np.divide(shared, spread, out=np.full(RESAMPLES, slope), where=usable)
        moved = value + slope * float(control.mean() - x.mean())
        return _Drawn(moved, means + slopes * (levels - at), True)

    def _bound(self, value: float, means: Floats, fitted: bool) -> Estimate:
        tail = expanded_tail(self.count - fitted)
        return bounded(value, means, tail, tail)


@functools.cache
def _widening(windows: int) -> float:
    """How much wider than resamples of so many windows their mean is spread: as `expanded_tail`."""
    if windows < 2:
        return 1.0
    share = student_quantile(1 - TAIL, windows - 1) / NormalDist().inv_cdf(1 - TAIL)
    return math.sqrt(windows / (windows - 1)) * share
