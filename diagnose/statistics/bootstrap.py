"""Intervals by a bootstrap over windows: tokens of one window depend on each other, windows hardly.

All quantities of a run share one set of resamples, so that their differences are paired too.
"""

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
# Counts of resampled tokens held at a time, so that memory does not grow with the text.
CELLS = 2**22

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95% interval."""

    value: float
    low: float
    high: float


def perplexity(nll: Floats) -> float:
    """exp of a mean NLL, of the windows of a text or of anything else. It is not numpy's exp, whose
    last digit depends on the processor's instructions: what is computed twice must be equal."""
    return math.exp(nll.mean())


class Resampler:
    """Resamples of `windows` windows with replacement, drawn once from `seed`."""

    def __init__(self, windows: int, seed: int):
        generator = np.random.default_rng(seed)
        counts = generator.multinomial(windows, np.full(windows, 1 / windows), size=RESAMPLES)
        # A row a window: `quantiles` takes whole rows.
        self._counts = np.ascontiguousarray(counts.T, dtype=np.int32)
        self._weights = counts / windows

    def means(self, by_window: Floats) -> Floats:
        """Means [RESAMPLES] of values [windows] under each resample."""
        return self._weights @ by_window

    def mean(self, by_window: Floats) -> Estimate:
        """The mean over windows with its interval."""
        return bounded(float(by_window.mean()), self.means(by_window))

    def ppl_difference(self, reference: Floats, candidate: Floats) -> Estimate:
        """PPL(candidate) − PPL(reference), from mean token NLL by window, paired."""
        value = perplexity(candidate) - perplexity(reference)
        return bounded(value, np.exp(self.means(candidate)) - np.exp(self.means(reference)))

    def ratio(self, part: Floats, whole: Floats) -> Estimate:
        """mean(part) / mean(whole), paired; NaN where the whole is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.divide(part.mean(), whole.mean()))
            return bounded(value, self.means(part) / self.means(whole))

    def quantiles(self, by_token: NDArray[np.floating], share: float) -> Floats:
        """The quantile of token values [windows, tokens] under each resample [RESAMPLES],
        interpolated as numpy does. Meant for the upper tail: of each window only as many tokens are
        looked at as can lie above the quantile."""
        windows, tokens = by_token.shape
        position = (windows * tokens - 1) * share
        # Ranks from the largest on: that of the value just below the position, and the one above.
        rank = windows * tokens - 1 - math.floor(position)
        above = max(rank - 1, 0)
        kept = min(tokens, rank + 1)
        largest = np.partition(by_token, tokens - kept, axis=1)[:, tokens - kept :].ravel()
        lower, upper = np.empty(RESAMPLES), np.empty(RESAMPLES)
        reach, done = 2 * (rank + 1), 0
        values, origin = _largest(largest, reach)
        while done < RESAMPLES:
            some = slice(done, done + max(1, CELLS // len(values)))
            passed = np.cumsum(self._counts[origin // kept, some], axis=0, dtype=np.int32)
            if len(values) < len(largest) and passed[-1].min() <= rank:
                reach *= 2
                values, origin = _largest(largest, reach)
                continue
            lower[some] = values[np.argmax(passed > rank, axis=0)]
            upper[some] = values[np.argmax(passed > above, axis=0)]
            done = some.stop
        return lower + (upper - lower) * (position - math.floor(position))


def _largest(values: NDArray[np.floating], count: int) -> tuple[Floats, NDArray[np.intp]]:
    """The `count` largest of `values`, all if there are fewer, descending; and where each was."""
    count = min(count, len(values))
    positions = np.argpartition(values, len(values) - count)[len(values) - count :]
    positions = positions[np.argsort(-values[positions], kind="stable")]
    return values[positions].astype(np.float64), positions


def bounded(
    value: float, resampled: Floats, low_tail: float = TAIL, high_tail: float = TAIL
) -> Estimate:
    """`value` with the percentile interval of its resampled counterparts."""
    low, high = np.quantile(resampled, [low_tail, 1 - high_tail])
    return Estimate(value, float(low), float(high))


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    """The value and its bounds, as files keep them."""
    return estimate.value, estimate.low, estimate.high


@functools.cache
def expanded_tail(windows: int, tail: float = TAIL) -> float:
    """The share to cut off the resampled values on a side, so that the true value is beyond it with
    probability `tail`: resamples of n windows vary too little, by √((n − 1)/n) and by what t is
    wider than the normal distribution.

    The expanded percentile interval of T. Hesterberg, What Teachers Should Know About the
    Bootstrap, The American Statistician 69 (2015). 0 for a single window.
    """
    if windows < 2:
        return 0.0
    steps = student_quantile(1 - tail, windows - 1)
    return NormalDist().cdf(-math.sqrt(windows / (windows - 1)) * steps)


def student_quantile(level: float, freedom: int) -> float:
    """The quantile of Student's t for a level above a half, by bisection. scipy.special has it too,
    and takes 43 MiB; tests hold this one against it."""
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def student_cdf(value: float, freedom: int) -> float:
    """P(t ≤ value), value ≥ 0, for whole degrees of freedom (Abramowitz and Stegun, 26.7.3–4)."""
    angle = math.atan(value / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 0.5 + (angle + total) / math.pi if odd else 0.5 + total / 2
