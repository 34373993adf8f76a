"""Two models on the same yes-or-no samples: which samples turned, by McNemar's exact test and by
intervals of the difference; and Holm's way of asking several such questions at once.

The samples of a task are independent of each other, so that intervals are not a bootstrap's: few of
a thousand samples turn, and resampling a handful of them says too little.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from awqscope.diagnose.statistics.bootstrap import TAIL, Estimate, student_cdf, student_quantile

# Bisections of an interval's bound, which end at the precision of a float.
STEPS = 50
# From so many degrees of freedom on Student's t is the normal distribution to four digits.
NORMAL_FREEDOM = 2000


@dataclass(frozen=True)
class Flips:
    """Of `samples` that two models answered, those that only the first has right (`regressed`) and
    those that only the second has right (`improved`)."""

    samples: int
    regressed: int
    improved: int

    @property
    def drop(self) -> float:
        """The share right of the first model less that of the second."""
        return (self.regressed - self.improved) / self.samples


def upper_tail(count: int, of: int) -> float:
    """P(X ≥ count) of a fair coin thrown `of` times, exact to the last bit."""
    ways = total = math.comb(of, max(0, count))
    for heads in range(max(0, count), of):
        ways = ways * (of - heads) // (heads + 1)
        total += ways
    return total / 2**of if count <= of else 0.0


def mcnemar(flips: Flips) -> float:
    """The two-sided p of McNemar's exact test: how often a fair coin would part the samples that
    turned as unevenly, or more. 1 where none turned."""
    turned = flips.regressed + flips.improved
    return min(1.0, 2 * upper_tail(max(flips.regressed, flips.improved), turned))


def adjust(chances: Sequence[float]) -> list[float]:
    """Holm's adjusted p of several tests, in their order: to call all those at most α surely
    different is wrong about any of them with a probability of α at most.

    S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
    Statistics 6 (1979).
    """
    adjusted, largest = [0.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda each: chances[each])):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[place]))
        adjusted[place] = largest
    return adjusted


def step_down(count: int, reject: Callable[[float], int], tail: float = TAIL) -> float:
    """The tail by which each of `count` tests is decided so that together they follow Holm's
    procedure at `tail`. reject: how many tests a tail rejects, which must not fall as it grows."""
    rejected = 0
    while True:
        share = tail / max(1, count - rejected)
        found = reject(share)
        if found <= rejected or found == count:
            return share
        rejected = found


def score(flips: Flips, drop: float) -> float:
    """How many standard errors the observed drop lies above a supposed one, where the standard
    error is that of the likeliest shares with just that drop.

    T. Tango, Equivalence Test and Confidence Interval for the Difference in Proportions for the
    Paired-Sample Design, Statistics in Medicine 17 (1998).
    """
    n, b, c = flips.samples, flips.regressed, flips.improved
    linear = (2 * n - b + c) * drop - b - c
    root = math.sqrt(max(0.0, linear**2 + 8 * n * c * drop * (1 - drop)))
    # Of the two forms of a quadratic's root, the one that adds numbers of one sign.
    share = (
        (root - linear) / (4 * n) if linear <= 0 else -2 * c * drop * (drop - 1) / (linear + root)
    )
    variance = n * (2 * share + drop * (1 - drop))
    above = b - c - n * drop
    if variance <= 0:
        return 0.0 if above == 0 else math.copysign(math.inf, above)
    return above / math.sqrt(variance)


def bound_drop(flips: Flips, low_tail: float = TAIL, high_tail: float = TAIL) -> Estimate:
    """The drop with its interval, each side left out with the probability of its tail.

    It is the score interval, made wider where it leaves out zero and McNemar's exact test does not
    find that side sure: so no drop is called sure that the exact test does not call sure.
    """
    low = _bisect(flips, NormalDist().inv_cdf(1 - low_tail), -1.0, flips.drop)
    high = _bisect(flips, NormalDist().inv_cdf(high_tail), flips.drop, 1.0)
    turned = flips.regressed + flips.improved
    if upper_tail(flips.regressed, turned) > low_tail:
        low = min(low, 0.0)
    if upper_tail(flips.improved, turned) > high_tail:
        high = max(high, 0.0)
    return Estimate(flips.drop, low, high)


def _bisect(flips: Flips, wanted: float, low: float, high: float) -> float:
    """The drop between two whose score is `wanted`; scores fall as drops grow."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(flips, middle) > wanted else (low, middle)
    return low if wanted < 0 else high


def bound_mean(
    values: Sequence[float], low_tail: float = TAIL, high_tail: float = TAIL
) -> Estimate:
    """The mean of differences with Student's interval, for scores that are not right or wrong. Its
    bounds are infinite where there are fewer than two."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean, -math.inf, math.inf)
    spread = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    error = math.sqrt(spread / count)
    return Estimate(
        mean,
        mean - _steps(low_tail, count - 1) * error,
        mean + _steps(high_tail, count - 1) * error,
    )


def mean_chance(values: Sequence[float]) -> float:
    """The two-sided p of Student's t for the mean of differences; 1 where there are fewer than two,
    or none differs."""
    estimate = bound_mean(values)
    half = estimate.high - estimate.value
    if not math.isfinite(half) or half == 0:
        return 1.0 if estimate.value == 0 or not math.isfinite(half) else 0.0
    freedom = len(values) - 1
    steps = abs(estimate.value) / half * _steps(TAIL, freedom)
    beyond = (
        1 - student_cdf(steps, freedom) if freedom < NORMAL_FREEDOM else NormalDist().cdf(-steps)
    )
    return min(1.0, max(0.0, 2 * beyond))


def _steps(tail: float, freedom: int) -> float:
    """How many standard errors of a mean leave out `tail`."""
    if freedom < NORMAL_FREEDOM:
        return student_quantile(1 - tail, freedom)
    return NormalDist().inv_cdf(1 - tail)
