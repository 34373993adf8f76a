"""Numbers of a gate: against numpy's on resampled tokens, and what makes them missing."""

import math

import numpy as np
import pyarrow as pa
import pytest

from awqscope.diagnose.gate.findings import (
    Finding,
    Findings,
    Measured,
    Missing,
    Slice,
    compare_measured,
    read_measured,
)
from awqscope.diagnose.gate.texts import number_texts
from awqscope.diagnose.statistics.bootstrap import RESAMPLES, expanded_tail
from tests.help.runs import make_tokens

SCORES = ("nll_reference", "nll", "kl", "top1", "delta_p")


def make_scores(windows: int, tokens: int, seed: int = 0, worse: float = 1.0) -> Measured:
    rng = np.random.default_rng(seed)
    reference = 3 + rng.normal(0, 0.3, windows)
    return Measured(
        reference,
        reference + worse * rng.normal(0.02, 0.02, windows),
        (worse * rng.exponential(0.05, (windows, tokens)) ** 1.5).astype(np.float32),
        np.clip(1 - worse * rng.uniform(0, 0.2, windows), 0, 1),
        np.clip(worse * rng.normal(-0.01, 0.1, (windows, tokens)), -1, 1).astype(np.float32),
    )


def judge(scores: Measured, slices: list[Slice], seed: int) -> Findings:
    return number_texts({"mixed": scores}, slices, "all", seed).judge("mixed")


def alone(found: tuple[Finding, ...] | Missing) -> Finding:
    assert not isinstance(found, Missing)
    (finding,) = found
    return finding


def resampled_windows(windows: int, seed: int) -> np.ndarray:
    """Which windows each resample holds [RESAMPLES, windows], drawn as `Resampler` documents."""
    counts = np.random.default_rng(seed).multinomial(
        windows, np.full(windows, 1 / windows), size=RESAMPLES
    )
    return np.array([np.repeat(np.arange(windows), count) for count in counts])


def test_every_number_is_what_resampling_the_tokens_gives() -> None:
    scores = make_scores(12, 400)
    found = judge(scores, [Slice("all", 0, 12)], seed=5)
    drawn = resampled_windows(12, 5)
    tail = expanded_tail(12)
    kl, shift = scores.kl.astype(float), scores.delta_p.astype(float)
    pool = {
        "kl": lambda w: kl[w].mean(),
        "top1_agreement": lambda w: scores.top1[w].mean(),
        "delta_p": lambda w: shift[w].mean(),
        "rms_delta_p": lambda w: math.sqrt((shift[w] ** 2).mean()),
        "ppl_ratio": lambda w: (
            math.exp(scores.nll[w].mean()) / math.exp(scores.nll_reference[w].mean())
        ),
        "delta_ppl": lambda w: (
            math.exp(scores.nll[w].mean()) - math.exp(scores.nll_reference[w].mean())
        ),
    }
    for name, number in pool.items():
        finding = alone(found[name])
        low, high = np.quantile([number(w) for w in drawn], [tail, 1 - tail])
        assert (finding.value, finding.low, finding.high) == pytest.approx(
            (number(np.arange(12)), low, high)
        ), name
        assert finding.tokens == 4800
    tails = [np.quantile(kl[w], 0.999) for w in drawn]
    tail_kl = alone(found["kl_p999"])
    assert (tail_kl.value, tail_kl.low) == pytest.approx(
        (np.quantile(kl, 0.999), np.quantile(tails, tail))
    )
    assert alone(found["kl"]).least == 6 * 400


def test_the_upper_end_of_p999_is_a_token_of_a_rank_that_is_surely_passed() -> None:
    """Of 20,000 independent tokens 20 are expected above the p99.9: in 97.5% of texts at least 11
    (Poisson), so the 11th largest or a larger one is the bound; and of 2,000 tokens none is."""
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        kl = rng.exponential(1.0, (40, 500)).astype(np.float32)
        one = Measured(np.zeros(40), np.zeros(40), kl, np.ones(40), kl)
        found = alone(judge(one, [Slice("all", 0, 40)], 0)["kl_p999"])
        missed += found.high < math.log(1000)
        assert found.high >= np.sort(kl.ravel())[-11] * (1 - 1e-6)
        assert found.tokens > found.least
    assert missed <= 10
    few = Measured(np.zeros(40), np.zeros(40), kl[:, :50], np.ones(40), kl)
    found = alone(judge(few, [Slice("all", 0, 40)], 0)["kl_p999"])
    assert found.high == math.inf
    assert found.tokens < found.least < 10_000
    assert math.isfinite(found.low)


def test_of_fewer_than_six_windows_nothing_is_known_but_the_number() -> None:
    found = judge(make_scores(5, 30), [Slice("all", 0, 5)], 0)
    kl = alone(found["kl"])
    assert (kl.low, kl.high, kl.least) == (-math.inf, math.inf, 180)


def test_slices_are_judged_by_their_own_windows() -> None:
    scores = make_scores(20, 50)
    parts = [Slice("a", 0, 8), Slice("b", 8, 12)]
    found = judge(scores, parts, seed=1)
    whole = Measured(*(getattr(scores, n)[8:] for n in SCORES))
    own = judge(whole, [Slice("b", 0, 12)], seed=1)
    for name, other in (("slice_kl", "kl"), ("slice_ppl_ratio", "ppl_ratio")):
        findings = found[name]
        assert not isinstance(findings, Missing)
        assert [finding.of for finding in findings] == ["a", "b"]
        alike = alone(own[other])
        assert findings[1].value == pytest.approx(alike.value)
        assert findings[1].high == pytest.approx(alike.high)
        # Two texts share the 2.5% in which one at its limit may fail.
        assert findings[1].low < alike.low
        assert findings[1].tokens == 600


def test_a_text_without_a_number_is_one_of_them() -> None:
    scores = make_scores(20, 50)
    scores.nll[:8] = math.nan
    found = judge(scores, [Slice("a", 0, 8), Slice("b", 8, 12)], seed=1)
    findings = found["slice_ppl_ratio"]
    assert not isinstance(findings, Missing)
    assert [finding.of for finding in findings] == ["a", "b"]
    assert not findings[0].is_known and findings[1].is_known
    assert (findings[0].low, findings[0].high) == (-math.inf, math.inf)
    assert isinstance(found["ppl_ratio"], Missing)


def test_drift_is_paired() -> None:
    baseline = make_scores(30, 200)
    worse = Measured(
        baseline.nll_reference,
        baseline.nll + 0.01,
        (baseline.kl * 1.1).astype(np.float32),
        baseline.top1 - 0.02,
        baseline.delta_p,
    )
    found = compare_measured(worse, baseline, seed=0)
    expected = {"ppl_drift": math.exp(0.01), "kl_drift": 1.1, "kl_p999_drift": 1.1}
    for name, value in {**expected, "top1_drop": 0.02}.items():
        finding = alone(found[name])
        assert (finding.value, finding.low, finding.high) == pytest.approx(
            (value, value, value), rel=1e-5
        ), name
    same = compare_measured(baseline, baseline, seed=0)
    assert alone(same["kl_drift"]).value == 1.0


def test_two_that_lose_nothing_are_equal_and_one_that_loses_is_infinitely_worse() -> None:
    some = make_scores(8, 30)
    lossless = Measured(
        some.nll_reference, some.nll_reference, np.zeros_like(some.kl), some.top1, some.delta_p
    )
    assert alone(compare_measured(lossless, lossless, 0)["kl_drift"]).high == 1.0
    assert alone(compare_measured(some, lossless, 0)["kl_drift"]).low == math.inf


def test_a_model_that_is_broken_is_infinitely_worse_not_an_error() -> None:
    scores = make_scores(8, 30)
    broken = Measured(
        scores.nll_reference, scores.nll + 1000, scores.kl, scores.top1, scores.delta_p
    )
    found = judge(broken, [Slice("all", 0, 8)], 0)
    assert alone(found["ppl_ratio"]).low == math.inf


def test_scores_are_read_by_window_without_its_first_token() -> None:
    table = make_tokens(4, 9)
    scores = read_measured(table, "uniform", 4, 9)
    assert isinstance(scores, Measured)
    rows = table.to_pylist()
    kl = [[row["kl_uniform"] for row in rows if row["window"] == w][1:] for w in range(4)]
    assert scores.kl.tolist() == kl
    for window in range(4):
        own = [row for row in rows if row["window"] == window][1:]
        assert scores.top1[window] == pytest.approx(np.mean([row["agree_uniform"] for row in own]))
        assert scores.nll[window] == pytest.approx(np.mean([row["nll_uniform"] for row in own]))


def test_scores_that_are_missing_say_so() -> None:
    table = make_tokens(4, 9)
    assert read_measured(table, "mixed", 4, 9) == Missing("the mixed model was not measured")
    values = table["kl_uniform"].to_pylist()
    values[5] = None
    at = table.column_names.index("kl_uniform")
    holed = table.set_column(at, "kl_uniform", pa.array(values, pa.float32()))
    assert read_measured(holed, "uniform", 4, 9) == Missing(
        "1 of 32 scored tokens have no kl_uniform"
    )
