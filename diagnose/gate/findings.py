"""The numbers of one model on a run's tokens, each with an interval: what a gate judges.

Intervals are expanded percentile intervals of a bootstrap over windows
(`diagnose/statistics/bootstrap.py`), and every number is paired by token, with the reference or
with a baseline's.
"""

import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from awqscope.diagnose.statistics.bootstrap import TAIL, Floats, Resampler, bounded, expanded_tail

P999 = 0.999
ENDLESS = 1e300
# Of a single window nothing is known; this only keeps its normal quantile finite.
SMALLEST_TAIL = 1e-9
# All of n windows lie on one side of their median with probability 2⁻ⁿ: with fewer than six no
# resampling can tell at 2.5%.
LEAST_WINDOWS = 6


@dataclass(frozen=True)
class Finding:
    """A number with the bounds of its 95% interval, infinite where too few tokens bound it.

    tokens: scored tokens that it rests on, 0 if it is exact; of a task, its samples. least: how
    many it takes, about, for finite bounds. of: the text or block that it is of, if not of the
    whole; of a task, what turned. A text or block whose value is NaN has infinite bounds: it
    decides nothing, and counts as worse than any.
    """

    value: float
    low: float
    high: float
    tokens: int = 0
    least: int = 0
    of: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it is a number at all."""
        return not math.isnan(self.value)


@dataclass(frozen=True)
class Missing:
    """Why there is no number."""

    reason: str


Findings = Mapping[str, tuple[Finding, ...] | Missing]


@dataclass(frozen=True)
class Slice:
    """Windows of one text: `first` and the following, `windows` in all."""

    text: str
    first: int
    windows: int

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + self.windows)


@dataclass(frozen=True)
class Measured:
    """One model on a run's tokens: mean NLL of reference and model by window [windows], KL by token
    [windows, scored tokens], share of equal top tokens by window [windows].

    delta_p: Δp by token, the probability that the model gives the token which is there less the
    one that the reference gives it [windows, scored tokens].
    """

    nll_reference: Floats
    nll: Floats
    kl: NDArray[np.float32]
    top1: Floats
    delta_p: NDArray[np.float32]

    def of(self, part: Slice) -> "Measured":
        """The same on one text's windows."""
        span = part.span
        return Measured(*(getattr(self, each.name)[span] for each in fields(self)))


def score_columns(subject: str) -> list[str]:
    """The columns of tokens.parquet that `read_measured` needs."""
    return ["nll_reference", f"nll_{subject}", f"kl_{subject}", f"agree_{subject}"]


def read_measured(tokens: pa.Table, subject: str, windows: int, length: int) -> Measured | Missing:
    """The scores of `subject` in a token table of `windows` windows of `length` tokens; Missing
    where a scored token has none."""
    names = score_columns(subject)
    columns = [_column(tokens[name], windows, length) for name in names]
    for name, values in zip(names, columns, strict=True):
        lacking = int(np.isnan(values).sum())
        if lacking == values.size:
            return Missing(f"the {subject} model was not measured")
        if lacking:
            return Missing(f"{lacking:,} of {values.size:,} scored tokens have no {name}")
    reference, nll, kl, top1 = columns
    delta_p = np.exp(-nll) - np.exp(-reference)
    return Measured(_by_window(reference), _by_window(nll), kl, _by_window(top1), delta_p)


def _column(column: pa.ChunkedArray, windows: int, length: int) -> NDArray[np.float32]:
    """A column's scored tokens [windows, length − 1]; NaN for those that have no value."""
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, "uint8")
    values = pc.fill_null(pc.cast(column, "float32"), np.nan).to_numpy()
    return values.reshape(windows, length)[:, 1:]


def _by_window(values: NDArray[np.float32]) -> Floats:
    return values.mean(axis=1, dtype=np.float64)


# Tens of megabytes where windows are many: the whole text's, and one slice's at a time.
@functools.lru_cache(maxsize=2)
def _resample(windows: int, seed: int) -> Resampler:
    return Resampler(windows, seed)


def _means(values: Floats, seed: int) -> Floats:
    """The mean of values [windows], and behind it the resampled ones."""
    return np.concatenate([[values.mean()], _resample(len(values), seed).means(values)])


def _tails(by_token: NDArray[np.float32], seed: int) -> Floats:
    """The p99.9 of values [windows, tokens], and behind it the resampled ones."""
    whole = np.quantile(by_token.astype(np.float64), P999)
    return np.concatenate([[whole], _resample(len(by_token), seed).quantiles(by_token, P999)])


def _ratios(part: Floats, whole: Floats) -> Floats:
    """Ratios of what cannot be negative; 1 where both are zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((part == 0) & (whole == 0), 1.0, part / whole)


def _find(values: Floats, windows: int, tokens: int, *, rivals: int = 1) -> Finding | Missing:
    """A number and its resampled counterparts as a finding, on `windows` windows with `tokens`
    scored in each. rivals: of how many findings the worst decides; each has its share of the 2.5%
    in which the lower bound may be too high, so that together they have no more."""
    tails = expanded_tail(windows, TAIL / rivals), expanded_tail(windows)
    # Between two infinities a quantile would be no number.
    finite = np.clip(values, -ENDLESS, ENDLESS)
    found = bounded(float(finite[0]), finite[1:], *tails)
    if any(math.isnan(bound) for bound in (found.value, found.low, found.high)):
        return Missing("it is not a number")
    value, low, high = (
        math.copysign(math.inf, bound) if abs(bound) >= ENDLESS else bound
        for bound in (found.value, found.low, found.high)
    )
    if windows < LEAST_WINDOWS:
        low, high = -math.inf, math.inf
    return Finding(value, low, high, windows * tokens, LEAST_WINDOWS * tokens)


def _find_tail(by_token: NDArray[np.float32], seed: int, rivals: int) -> Finding | Missing:
    """The p99.9 as a finding. Its upper bound is not the bootstrap's, which is too low: resamples
    vary as the tokens above the p99.9 that were seen, and where too few were seen, by too little.

    Of n tokens m = n/1000 are expected above the true p99.9, with variance m times the design
    effect (variance over mean of such tokens by window, at least 1), so that it has at least
    m − z√(effect · m) above it in all but 2.5% of runs; the token of that rank is the bound
    (after R. Woodruff, Confidence Intervals for Medians and Other Position Measures, Journal of the
    American Statistical Association 47, 1952). Where the rank is below 1 there is none.
    """
    found = _find(_tails(by_token, seed), *by_token.shape, rivals=rivals)
    if isinstance(found, Missing):
        return found
    above = (by_token > found.value).sum(axis=1)
    effect = max(1.0, above.var(ddof=1) / above.mean()) if above.any() else 1.0
    steps = -NormalDist().inv_cdf(max(expanded_tail(len(by_token)), SMALLEST_TAIL))
    expected = (1 - P999) * by_token.size
    rank = math.ceil(expected - steps * math.sqrt(effect * expected))
    root = (steps * math.sqrt(effect) + math.sqrt(steps**2 * effect + 4)) / 2
    least = max(found.least, math.ceil(root**2 / (1 - P999)))
    bound = math.inf
    if rank >= 1:
        place = by_token.size - rank
        bound = max(found.high, float(np.partition(by_token, place, axis=None)[place]))
    return replace(found, high=bound, least=least)


def _alone(found: Mapping[str, Finding | Missing]) -> dict[str, tuple[Finding, ...] | Missing]:
    return {k: one if isinstance(one, Missing) else (one,) for k, one in found.items()}


# A number of some windows and, behind it, its resampled counterparts.
Resampled = Callable[[Measured, int], Floats]
NUMBERS: Mapping[str, Resampled] = {
    "ppl_ratio": lambda scores, seed: np.exp(_means(scores.nll - scores.nll_reference, seed)),
    "delta_ppl": lambda scores, seed: (
        np.exp(_means(scores.nll, seed)) - np.exp(_means(scores.nll_reference, seed))
    ),
    "kl": lambda scores, seed: _means(_by_window(scores.kl), seed),
    "top1_agreement": lambda scores, seed: _means(scores.top1, seed),
    "delta_p": lambda scores, seed: _means(_by_window(scores.delta_p), seed),
    "rms_delta_p": lambda scores, seed: np.sqrt(
        _means(np.square(scores.delta_p, dtype=np.float64).mean(axis=1), seed)
    ),
}
TAIL_NUMBER = "kl_p999"
ALL_NUMBERS = (*NUMBERS, TAIL_NUMBER)


def judge_windows(
    scores: Measured, seed: int, *, rivals: int = 1, only: Collection[str] = ALL_NUMBERS
) -> dict[str, Finding | Missing]:
    """The numbers of a model against its reference on some windows, by name: ppl_ratio, delta_ppl,
    kl, top1_agreement, delta_p and rms_delta_p (mean and root mean square of Δp), kl_p999.

    rivals: of how many such texts the worst decides (see `_find`). only: those that are wanted.
    """
    found: dict[str, Finding | Missing] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, number in NUMBERS.items():
            if name in only:
                found[name] = _find(number(scores, seed), *scores.kl.shape, rivals=rivals)
    if TAIL_NUMBER in only:
        found[TAIL_NUMBER] = _find_tail(scores.kl, seed, rivals)
    return found


def find_recovered(mixed: Measured, uniform: Measured, seed: int) -> Finding | Missing:
    """The share of uniform's KL that mixed gives back on some windows, paired; Missing where
    uniform has none to give back."""
    kept, lost = (_means(_by_window(scores.kl), seed) for scores in (mixed, uniform))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _find(1 - kept / lost, *mixed.kl.shape)


def compare_measured(scores: Measured, baseline: Measured, seed: int) -> Findings:
    """A model against a baseline's on the same tokens: ppl_drift, kl_drift and kl_p999_drift as
    ratios, top1_drop as a difference. Two that lose nothing are equal: their ratio is 1."""
    scored = scores.kl.shape
    kl, theirs = _by_window(scores.kl), _by_window(baseline.kl)
    with np.errstate(over="ignore"):
        numbers = {
            "ppl_drift": np.exp(_means(scores.nll - baseline.nll, seed)),
            "kl_drift": _ratios(_means(kl, seed), _means(theirs, seed)),
            "top1_drop": _means(baseline.top1 - scores.top1, seed),
        }
    numbers["kl_p999_drift"] = _ratios(_tails(scores.kl, seed), _tails(baseline.kl, seed))
    return _alone({name: _find(values, *scored) for name, values in numbers.items()})


def change_measured(
    scores: Measured, baseline: Measured, seed: int
) -> dict[str, Finding | Missing]:
    """What a model's numbers are more than a baseline's on the same tokens: ppl, kl and
    top1_agreement. The two may have different references."""
    scored = scores.kl.shape
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = {
            "ppl": np.exp(_means(scores.nll, seed)) - np.exp(_means(baseline.nll, seed)),
            "kl": _means(_by_window(scores.kl) - _by_window(baseline.kl), seed),
            "top1_agreement": _means(scores.top1 - baseline.top1, seed),
        }
    return {name: _find(values, *scored) for name, values in numbers.items()}
