"""Deciding: the interval rule, the worst limit, what is missing, how many tokens would do."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.gate.criteria import SECTIONS
from awqscope.diagnose.gate.evidence import Evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import Limit, Policy, parse_policy
from awqscope.diagnose.gate.verdict import (
    FAIL,
    INCONCLUSIVE,
    MOST_HALVES,
    PASS,
    Check,
    GateVerdict,
    decide,
    tokens_to_decide,
    weigh,
)
from awqscope.mixedprec.errors import InputError

TOKENS = 10_000


def evidence(baseline: str | None = None, **numbers: object) -> Evidence:
    found: dict = {
        name: (value,) if isinstance(value, Finding) else value for name, value in numbers.items()
    }
    return Evidence("run", "mixed", baseline, 100, 101, TOKENS, found)


def finding(value: float, low: float, high: float, of: str = "", tokens: int = TOKENS) -> Finding:
    return Finding(value, low, high, tokens, 600, of)


def judge(policy: str, numbers: dict[str, Any], baseline: str | None = None) -> GateVerdict:
    return decide(parse_policy(policy, "p"), evidence(baseline, **numbers))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, PASS),
        (0.1, 0.3, PASS),
        (0.1, 0.31, INCONCLUSIVE),
        (0.3, 0.4, INCONCLUSIVE),
        (0.31, 0.4, FAIL),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, expected: str) -> None:
    number = finding((low + high) / 2, low, high)
    assert judge("[limits]\nmax_kl = 0.3", {"kl": number}).outcome == expected
    mirrored = finding(1 - (low + high) / 2, 1 - high, 1 - low)
    verdict = judge("[limits]\nmin_top1_agreement = 0.7", {"top1_agreement": mirrored})
    assert verdict.outcome == expected
    assert verdict.exit_code == {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}[expected]


def test_the_worst_limit_decides() -> None:
    policy = "[limits]\nmax_kl = 1\nmax_kl_p999 = 1\nmax_ppl_ratio = 1"
    good, open_, bad = finding(0.5, 0.4, 0.6), finding(1, 0.9, 1.1), finding(2, 1.9, 2.1)
    numbers = {"kl": good, "kl_p999": good, "ppl_ratio": good}
    assert judge(policy, numbers).outcome == PASS
    assert judge(policy, {**numbers, "kl": open_}).outcome == INCONCLUSIVE
    verdict = judge(policy, {**numbers, "kl": open_, "ppl_ratio": bad})
    assert verdict.outcome == FAIL
    outcomes = {check.limit.criterion.key: check.outcome for check in verdict.checks}
    assert outcomes == {"max_kl": INCONCLUSIVE, "max_kl_p999": PASS, "max_ppl_ratio": FAIL}


def test_what_is_missing_never_passes() -> None:
    verdict = judge("[limits]\nmax_kl = 1", {"kl": Missing("it was never measured")})
    assert (verdict.outcome, verdict.checks[0].reason) == (INCONCLUSIVE, "it was never measured")
    assert judge("[limits]\nmax_kl = 1", {}).outcome == INCONCLUSIVE
    proof = "[limits]\nrequire_proof = true"
    assert judge(proof, {"proof": Finding(0, 0, 0, of="missing")}).outcome == FAIL
    assert judge(proof, {"proof": Finding(0, 0, 0, of="failed")}).outcome == FAIL
    assert judge(proof, {"proof": Finding(1, 1, 1, of="passed")}).outcome == PASS


def test_too_few_tokens_never_decide() -> None:
    few = finding(0.1, -math.inf, math.inf, tokens=599)
    verdict = judge("[limits]\nmax_kl = 1", {"kl": few})
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.checks[0].tokens == pytest.approx(TOKENS * 600 / 599, abs=2)
    assert "it takes about" in verdict.checks[0].reason


def test_drift_needs_a_baseline_unless_it_is_optional() -> None:
    strict = "[limits]\nmax_kl = 1\n[drift]\nmax_kl_ratio = 1.1"
    numbers = {"kl": finding(0.5, 0.4, 0.6), "kl_drift": finding(1, 0.9, 1.05)}
    assert judge(strict, numbers, "base").outcome == PASS
    verdict = judge(strict, numbers)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.checks[1].reason == "no baseline was given"
    verdict = judge(f"{strict}\noptional = true", numbers)
    assert (verdict.outcome, len(verdict.checks)) == (PASS, 1)
    assert "Drift was not judged" in verdict.notes[0]


def test_of_several_texts_the_worst_decides() -> None:
    def outcome(*texts: Finding) -> tuple[str, str]:
        verdict = judge("[limits]\nmax_slice_kl = 1", {"slice_kl": texts})
        number = verdict.checks[0].finding
        assert number is not None
        return verdict.outcome, number.of

    good, better = finding(0.5, 0.4, 0.6, "good"), finding(0.1, 0.1, 0.2, "better")
    open_ = finding(0.9, 0.7, 1.1, "open")
    assert outcome(better, good) == (PASS, "good")
    assert outcome(open_, good) == (INCONCLUSIVE, "open")
    # An open one reaches higher than the one that fails, which decides all the same.
    assert outcome(finding(1.5, 0.9, 9, "open"), finding(2, 1.1, 3, "bad")) == (FAIL, "bad")


def worst_text(policy: str, *texts: Finding) -> Check:
    (check,) = judge(f"[limits]\n{policy}", {"slice_kl": texts, "slice_ppl_ratio": texts}).checks
    return check


def endless(value: float, of: str) -> Finding:
    """As a text of few windows has it."""
    return finding(value, -math.inf, math.inf, of, tokens=3)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("policy", ["max_slice_kl = 0.02", "max_slice_ppl_ratio = 1"])
def test_texts_without_bounds_are_told_apart_by_their_numbers(policy: str, order: int) -> None:
    texts = [endless(0.01210, "a.txt"), endless(0.01371, "b.txt")][::order]
    check = worst_text(policy, *texts)
    assert check.finding is not None
    assert (check.outcome, check.finding.of, check.finding.value) == (
        INCONCLUSIVE,
        "b.txt",
        0.01371,
    )
    assert check.alike == 0
    assert "for all 2 that are undecided" in check.reason


def test_equal_texts_are_counted_and_the_first_is_named() -> None:
    check = worst_text(
        "max_slice_kl = 0.02", *(endless(0.01, name) for name in ("a.txt", "b.txt", "c.txt"))
    )
    assert check.finding is not None and check.finding.of == "a.txt"
    assert check.alike == 2
    # Of equal numbers the one that may be larger is worse.
    check = worst_text("max_slice_kl = 9", finding(1, 0, 2, "sure"), finding(1, 0, 3, "less sure"))
    assert check.finding is not None and check.finding.of == "less sure"


def test_the_worst_is_what_has_the_largest_number() -> None:
    """The line reads "worst text": another text must not have a larger number unsaid."""
    wide, high = finding(0.45, 0.1, 0.9, "wide"), finding(0.5, 0.4, 0.6, "high")
    check = worst_text("max_slice_kl = 1", wide, high)
    assert (check.outcome, check.finding, check.beyond) == (PASS, high, None)
    sure, bad = finding(1.9, 1.7, 2.1, "sure"), finding(2, 1.1, 3, "bad")
    check = worst_text("max_slice_kl = 1", sure, bad)
    assert (check.outcome, check.finding, check.beyond) == (FAIL, bad, None)
    # A text that holds may well have a larger number than the one that is undecided.
    holds, few = finding(0.9, 0.85, 0.95, "holds"), endless(0.1, "few")
    check = worst_text("max_slice_kl = 1", few, holds)
    assert (check.outcome, check.finding, check.beyond) == (INCONCLUSIVE, few, holds)
    assert check.reason.startswith("it takes about") and "all" not in check.reason
    # With a limit from below the smallest is the worst.
    numbers = {"top1_agreement": (endless(0.9, "a"), endless(0.7, "b"), endless(0.8, "c"))}
    (check,) = judge("[limits]\nmin_top1_agreement = 0.5", numbers).checks
    assert check.finding is not None and check.finding.of == "b"


def test_what_is_no_number_never_passes_and_hides_no_failure() -> None:
    none = finding(math.nan, -math.inf, math.inf, "none")
    check = worst_text("max_slice_kl = 1", finding(0.5, 0.4, 0.6, "good"), none)
    assert (check.outcome, check.reason) == (INCONCLUSIVE, "it is not a number")
    assert check.finding is none and check.tokens is None
    check = worst_text("max_slice_kl = 1", none, finding(2, 1.5, 3, "bad"))
    assert check.finding is not None
    assert (check.outcome, check.finding.of, check.beyond) == (FAIL, "bad", None)
    check = worst_text("max_slice_kl = 1", finding(math.inf, 5, math.inf, "inf"), endless(3, "few"))
    assert check.finding is not None
    assert (check.outcome, check.finding.of) == (FAIL, "inf")


@given(
    st.permutations(["a", "b", "c", "d"]),
    st.lists(st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 2.0, math.inf]), min_size=4, max_size=4),
)
def test_the_order_of_texts_decides_nothing_but_ties(names: list[str], values: list[float]) -> None:
    texts = [endless(value, name) for name, value in zip(names, values, strict=True)]
    check = worst_text("max_slice_kl = 1", *texts)
    assert check.finding is not None
    assert check.finding.value == max(values)
    assert check.alike == values.count(max(values)) - 1
    assert check.finding.of == names[values.index(max(values))]


def test_nothing_judged_is_refused() -> None:
    with pytest.raises(InputError, match="judges nothing"):
        decide(Policy("mine", "mixed", ()), evidence())


KL = SECTIONS["limits"][2]
TOP1 = SECTIONS["limits"][4]


def test_tokens_to_decide_by_hand() -> None:
    # The upper half is 0.2 wide and must shrink to 0.1: four times the tokens.
    limit = Limit(KL, 0.3)
    assert tokens_to_decide([finding(0.2, 0.15, 0.4)], limit, 1000) == pytest.approx(4000, abs=1)
    # Above the limit it is the lower half that matters.
    assert tokens_to_decide([finding(0.4, 0.2, 0.45)], limit, 1000) == pytest.approx(4000, abs=1)
    assert tokens_to_decide([finding(0.3, 0.2, 0.4)], limit, 1000) is None
    # More than can be counted.
    assert tokens_to_decide([finding(0, 0, 1)], Limit(limit.criterion, 1e-184), 1000) is None
    assert tokens_to_decide([finding(0.9, 0.6, 0.95)], Limit(TOP1, 0.8), 1000) == pytest.approx(
        9000, abs=1
    )
    assert tokens_to_decide([finding(0.7, 0.6, 1.0)], Limit(TOP1, 0.8), 1000) == pytest.approx(
        9000, abs=1
    )


@given(
    value=st.floats(0.01, 1),
    below=st.floats(0, 1),
    above=st.floats(0, 1),
    limit=st.floats(0.01, 1),
    upper=st.booleans(),
)
def test_so_many_tokens_would_have_decided(
    value: float, below: float, above: float, limit: float, upper: bool
) -> None:
    """An interval that has shrunk by 1/√n around the same value is decided, the way it leaned; one
    on a hundredth fewer tokens is not."""
    at = Limit(KL if upper else TOP1, limit)
    number = Finding(value, value - below, value + above, 10_000, 0)
    if weigh(number, at) != INCONCLUSIVE:
        return
    needed = tokens_to_decide([number], at, 10_000)
    if needed is None:
        assert value == limit or max(below, above) > MOST_HALVES * abs(value - limit)
        return
    leaning = PASS if (value < limit) == upper else FAIL

    def shrunk(tokens: float) -> Finding:
        by = math.sqrt(10_000 / tokens)
        return Finding(value, value - below * by, value + above * by, 10_000, 0)

    assert weigh(shrunk(needed * (1 + 1e-6) + 1), at) == leaning
    if needed > 10_100:
        assert weigh(shrunk(0.99 * needed), at) == INCONCLUSIVE
