"""The gate from Python: what the command decides, as an object."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqscope import InputError, gate, load_policy, read_run
from awqscope.app.cli import app
from tests.help.runs import SAMPLE, write_run

STRICT = "[limits]\nmax_kl = 0.0001\nmin_top1_agreement = 0.918\n"


@pytest.mark.parametrize("policy", ["", STRICT])
def test_it_decides_what_the_command_does(tmp_path: Path, policy: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(policy)
    given = ["--policy", str(file)] * bool(policy)
    told = CliRunner().invoke(app, ["gate", str(SAMPLE), *given, "--json", "-"])
    found = gate(SAMPLE, file if policy else None)
    assert found.to_json() == json.loads(told.stdout) and found.exit_code == told.exit_code
    assert found.passed == (told.exit_code == 0) and found.outcome == found.to_json()["verdict"]
    for limit in found.to_json()["limits"]:
        row = found.limits.loc[limit["name"]]
        assert row["verdict"] == limit["verdict"] and row["value"] == limit["value"]
    if policy:
        assert found.limits["verdict"].to_dict() == {
            "limits.max_kl": "fail",
            "limits.min_top1_agreement": "inconclusive",
        }
        assert (
            repr(found) == f"<GateResult {SAMPLE}: Fail: of 2 limits, 1 not held and 1 undecided.>"
        )
        assert found.limits.loc["limits.min_top1_agreement", "tokens_to_decide"] > 10_200
        assert gate(read_run(SAMPLE), load_policy(file)).to_json() == found.to_json()
    shown = found._repr_html_()
    assert "<script" not in shown and shown.count("<tr>") == 1 + len(found.limits)


def test_a_run_is_judged_by_its_own_policy(tmp_path: Path) -> None:
    run = write_run(tmp_path, "own")
    (run / "policy.toml").write_text(STRICT)
    told = CliRunner().invoke(app, ["gate", str(run), "--json", "-"])
    assert gate(run).to_json() == json.loads(told.stdout) and gate(run).outcome == "fail"
    assert gate(run, load_policy()).outcome != "fail"


def test_findings_are_what_is_known_limited_or_not(tmp_path: Path) -> None:
    found = gate(SAMPLE, baseline=write_run(tmp_path, "before"))
    numbers = found.findings
    kl = numbers.loc[("kl", "")]
    headline = read_run(SAMPLE).headline.loc["mixed"]
    assert kl["value"] == pytest.approx(headline["kl"], rel=1e-6)
    assert kl["low"] <= headline["kl_low"] and kl["tokens"] == 10_200
    assert len(numbers.loc["block_share"]) == 8
    assert numbers.loc[("kl_drift", ""), "value"] == 1.0
    assert numbers.loc[("range_margin", ""), "missing"] == "the largest activation was not measured"
    assert "drift.max_kl_ratio" in found.limits.index


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not finished"):
        gate(write_run(tmp_path, state="running", headline={}))
    with pytest.raises(InputError, match="there is no policy"):
        gate(SAMPLE, tmp_path / "nothing.toml")
