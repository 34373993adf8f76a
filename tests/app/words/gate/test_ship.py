"""May it ship, in a sentence: the one limit that decided, and how the others stand."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.app.words.gate.ship import NOT_JUDGED, WORDS, Ship, use_room, write_ship
from awqscope.diagnose.gate.criteria import SECTIONS
from awqscope.diagnose.gate.evidence import Evidence
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.policy import Policy, parse_policy
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, GateVerdict, decide
from tests.app.terminal.test_gate import verdicts


def judge(policy: str | Policy, **numbers: Any) -> GateVerdict:
    told = {name: n if isinstance(n, tuple | Missing) else (n,) for name, n in numbers.items()}
    wanted = parse_policy(policy, "p") if isinstance(policy, str) else policy
    return decide(wanted, Evidence("run", "mixed", None, 40, 256, 10_200, told))


def about(value: float, half: float = 0.0, of: str = "") -> Finding:
    return Finding(value, value - half, value + half, 10_200, 600, of)


def test_the_worst_text_is_named_where_there_are_several() -> None:
    texts = (about(0.001, of="prose.txt"), about(0.021, of="code.txt"))
    ship = write_ship(judge("[limits]\nmax_slice_kl = 0.02", slice_kl=texts))
    assert ship.sentence == "May not ship: KL of the worst text (code.txt) 0.02100 is above 0.02"
    ship = write_ship(judge("[limits]\nmax_slice_kl = 0.02", slice_kl=texts[1]))
    assert ship.sentence == "May not ship: KL of the worst text 0.02100 is above 0.02"


@pytest.mark.parametrize(
    ("policy", "measure", "finding", "said"),
    [
        ("[limits]\nmin_top1_agreement = 0.9", "top1_agreement", about(0.83), "is below 90%"),
        ("[limits]\nrequire_proof = true", "proof", Finding(0, 0, 0, of="missing"), "is missing"),
        ("[limits]\nmin_range_margin = 2", "range_margin", about(1.5), "margin 1.5 is below 2"),
    ],
)
def test_what_fails_is_said_from_its_side(
    policy: str, measure: str, finding: Finding, said: str
) -> None:
    ship = write_ship(judge(policy, **{measure: finding}))
    assert (ship.answer, ship.sign, ship.rest) == ("May not ship", "✕", "")
    assert ship.sentence.endswith(said)


def test_of_several_that_fail_the_one_decides_that_uses_most_of_its_room() -> None:
    policy = "[limits]\nmax_ppl_ratio = 1.03\nmax_kl = 0.05\nmin_top1_agreement = 0.9\n"
    numbers = {"ppl_ratio": about(1.06), "kl": about(0.2), "top1_agreement": about(0.95)}
    ship = write_ship(judge(policy, **numbers))
    # 0.06 of 0.03, and 0.2 of 0.05.
    assert ship.why == "mean KL 0.20000 is above 0.05"
    assert ship.rest == "of the other limits 1 is not held"
    numbers = {"ppl_ratio": about(1.16), "kl": about(0.2), "top1_agreement": about(0.91, 0.02)}
    ship = write_ship(judge(policy, **numbers))
    assert ship.why == "PPL ratio 1.1600 is above 1.03"
    assert ship.rest == "of the other limits 1 is not held and 1 is undecided"


def test_undecided_says_what_would_decide() -> None:
    policy = "[limits]\nmax_kl = 0.05\nmax_kl_p999 = 1\n"
    ship = write_ship(judge(policy, kl=about(0.049, 0.004), kl_p999=about(0.1)))
    assert ship.sentence.startswith("Undecided: mean KL 0.04900 may be above 0.05; about ")
    assert ship.sentence.endswith(" windows) would decide")
    missing = Missing("no checkpoint was made: 3 bits")
    ship = write_ship(judge(policy, kl=about(0.049, 0.004), kl_p999=missing))
    assert ship.why == "p99.9 of KL is not known (no checkpoint was made: 3 bits)"
    assert write_ship(judge(policy, kl=about(math.nan))).why.startswith("mean KL is not a number")


def test_a_run_that_may_ship_says_what_is_nearest_to_its_limit() -> None:
    policy = "[limits]\nmax_ppl_ratio = 1.03\nmin_top1_agreement = 0.9\nrequire_proof = true"
    numbers = {"ppl_ratio": about(1.015), "top1_agreement": about(0.92)}
    ship = write_ship(judge(policy, **numbers, proof=Finding(1, 1, 1, of="passed")))
    assert (ship.sentence, ship.outcome) == ("May ship: all 3 limits hold", PASS)
    assert ship.rest == "nearest to its limit is same top token, 92.00% (≥\N{NO-BREAK SPACE}90%)"
    assert write_ship(judge("[limits]\nmax_kl = 1", kl=about(0))).sentence == (
        "May ship: the only limit holds"
    )


def test_nothing_judged_is_no_answer() -> None:
    assert Ship("", "the run failed").sentence == f"{NOT_JUDGED}: the run failed"
    assert set(WORDS) == {PASS, FAIL, INCONCLUSIVE}


@given(verdicts())
def test_the_sentence_is_of_the_verdict_whatever_the_numbers_are(verdict: GateVerdict) -> None:
    ship = write_ship(verdict)
    assert ship.outcome == verdict.outcome and ship.answer == WORDS[verdict.outcome]
    assert ship.why and ship.sentence.isprintable()
    if verdict.outcome != PASS:
        said = [check.limit.criterion for check in verdict.checks if check.outcome == ship.outcome]
        assert any(each.is_demand or ship.why.startswith(each.spoken) for each in said)


@given(st.sampled_from([each for every in SECTIONS.values() for each in every]), st.data())
def test_room_is_used_up_at_the_limit(criterion: Any, data: st.DataObject) -> None:
    """Less than 1 on the good side of a limit, more on the bad."""
    if criterion.is_demand:
        return
    least, most = max(criterion.least, 1e-3), min(criterion.most, 50)
    limit = data.draw(st.floats(least, most).filter(lambda x: abs(x - criterion.least) > 1e-6))
    if not criterion.upper and criterion.most - limit < 1e-6:
        return
    policy = f"[{criterion.section}]\n{criterion.key} = {limit!r}"
    # On the other side of the limit than half of what is between it and the best.
    best = criterion.least if criterion.upper else min(criterion.most, 2 * limit)
    good, bad = (limit + best) / 2, limit + (limit - best) / 2
    for value, is_good in ((good, True), (bad, False)):
        told = {criterion.measure: (Finding(value, value, value),)}
        evidence = Evidence("run", "mixed", "base", 40, 256, 10_200, told, "mixed")
        (check,) = decide(parse_policy(policy, "p"), evidence).checks
        assert (check.outcome == PASS) == is_good
        assert (use_room(check) < 1) == is_good
