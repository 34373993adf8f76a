"""The table of limits, saved: what stands in a note below a name is in columns of its own."""

import pytest

from awqscope.app.dashboard.sections.gate.card import limits_table
from awqscope.diagnose.gate.evidence import Evidence
from awqscope.diagnose.gate.findings import Finding
from awqscope.diagnose.gate.policy import parse_policy
from awqscope.diagnose.gate.verdict import decide
from tests.help.saved import Row, save_table
from tests.help.tasks import make_task, make_tasks, turn


def save(evidence: Evidence, policy: str) -> list[Row]:
    return save_table(
        limits_table(decide(parse_policy(policy, "p"), evidence)).to_plotly_json()["props"]
    )


def test_a_task_has_its_p_value_and_shares() -> None:
    tasks = make_tasks(make_task("tiny", **turn(1000, 30, 15)))
    evidence = Evidence("r", "mixed", None, 10, 101, 1000, {}, tasks=tasks)
    policy = "[tasks]\nmax_drop = 0.02\n[tasks.other]\nmax_drop = 0.1"
    tiny, other = save(evidence, policy)
    assert tiny["Number"] == "tiny, acc" and tiny["p"] == pytest.approx(0.036, abs=0.001)
    assert tiny["Of"] == "of 1,000 samples 30 worse and 15 better"
    assert (tiny["Measured"], tiny["Limit"], tiny["Limit note"]) == (-0.015, -0.02, "≥")
    assert tiny["95% low"] == pytest.approx(-0.0291, abs=1e-4)
    assert tiny["95% low"] < tiny["Measured"] < tiny["95% high"] < 0
    assert (other["Measured"], other["p"], other["Note"]) == ("", "", "it was not run")


def test_the_worst_text_has_its_number_and_bounds() -> None:
    few = Finding(0.01, -float("inf"), float("inf"), 10, 60, "few.txt")
    sure = Finding(0.015, 0.014, 0.016, 5000, 60, "sure.txt")
    evidence = Evidence("r", "mixed", None, 10, 101, 1000, {"slice_kl": (few, sure)})
    (line,) = save(evidence, "[limits]\nmax_slice_kl = 0.02")
    assert (line["Of"], line["Measured"]) == ("few.txt", 0.01)
    assert (line["95% low"], line["95% high"]) == ("−inf", "inf")
    worst = [line[name] for name in ("Worst", "Worst low", "Worst high", "Worst note")]
    assert worst == [0.015, 0.014, 0.016, "sure.txt holds"]
