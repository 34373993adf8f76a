"""`awqscope gate` from outside: exit codes, files, refusals; and its card on a run's page."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from awqscope.app import store as store_module
from awqscope.app.cli import app
from awqscope.app.dashboard.components import Table
from awqscope.app.dashboard.sections.gate.card import gate_card
from awqscope.app.dashboard.sections.gate.head import ship_head
from awqscope.app.report.contents import read_findings
from awqscope.app.store import Store
from awqscope.diagnose.gate.policy import DEFAULT_PATH, SCHEMA_PATH, load_policy
from tests.help.runs import SAMPLE, change_record, write_run


def gate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def refused(said: str, *arguments: object) -> None:
    """Exit code 2 and one line on stderr with `said`; nothing on stdout."""
    result = gate(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("awqscope: ") and said in line


@pytest.mark.parametrize(
    ("policy", "verdict", "code"),
    [
        ("[limits]\nmax_kl = 0.05\nrequire_proof = true", "pass", 0),
        ("[limits]\nmax_kl = 0.005", "fail", 1),
        ("subject = 'uniform'\n[limits]\nmax_ppl_ratio = 1.03", "fail", 1),
        ("[limits]\nmax_kl = 0.0118", "inconclusive", 3),
        ("[limits]\nmax_kl = 0.05\n[drift]\nmax_kl_ratio = 1.1", "inconclusive", 3),
    ],
)
def test_exit_codes_and_files(policy: str, verdict: str, code: int, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(policy)
    files = {name: tmp_path / "out" / name for name in ("junit", "markdown", "json")}
    options = [part for name, file in files.items() for part in (f"--{name}", file)]
    result = gate(SAMPLE, "--policy", path, *options)
    assert result.exit_code == code, result.output
    assert result.stdout.lower().startswith(verdict)
    told = json.loads(files["json"].read_text())
    assert (told["verdict"], told["exit_code"]) == (verdict, code)
    assert verdict in files["markdown"].read_text(encoding="utf-8").splitlines()[0]
    suites = ElementTree.parse(files["junit"]).getroot()
    bad = int(suites.get("failures", "")), int(suites.get("errors", ""))
    assert (bad[0] > 0, bad[1] > 0) == (verdict == "fail", verdict == "inconclusive")
    again = gate(SAMPLE, "--policy", path, "--json", "-")
    assert json.loads(again.stdout) == told
    assert again.stdout == files["json"].read_text()
    for kind in ("junit", "markdown"):
        shown = gate(SAMPLE, "--policy", path, f"--{kind}", "-").stdout
        assert shown == files[kind].read_text(encoding="utf-8")


def test_the_default_policy_and_its_schema_are_printed() -> None:
    assert gate("--print-policy").stdout == DEFAULT_PATH.read_text(encoding="utf-8")
    assert gate("--print-schema").stdout == SCHEMA_PATH.read_text(encoding="utf-8")
    result = gate(SAMPLE, "--json", "-")
    told = json.loads(result.stdout)
    assert (told["policy"], told["verdict"]) == ("default policy", "pass")
    assert "Drift was not judged" in told["notes"][0]


def test_a_run_is_judged_by_its_own_policy_unless_another_is_given(tmp_path: Path) -> None:
    run = write_run(tmp_path, "own")
    own = run / "policy.toml"
    own.write_text("[limits]\nmax_kl = 0.005\n")
    result = gate(run)
    assert result.exit_code == 1
    assert "by the run's own policy (policy.toml beside it)" in " ".join(result.stdout.split())
    assert json.loads(gate(run, "--json", "-").stdout)["policy"] == str(own)
    other = tmp_path / "other.toml"
    other.write_text("[limits]\nmax_kl = 0.05\n")
    assert gate(run, "--policy", other).exit_code == 0
    assert read_findings(run).release.outcome == "fail"
    assert read_findings(run, load_policy(other)).release.outcome == "pass"
    own.write_text("[limits]\nmax_klp = 1\n")
    refused("did you mean max_kl?", run)


def test_drift_against_a_baseline(tmp_path: Path) -> None:
    baseline = write_run(tmp_path, "baseline")
    assert gate(SAMPLE, "--baseline", baseline).exit_code == 0
    uniform = tmp_path / "p.toml"
    uniform.write_text("[drift]\nmax_kl_ratio = 0.9\n")
    assert gate(SAMPLE, "--policy", uniform, "--baseline", baseline).exit_code == 1
    uniform.write_text("[limits]\nmax_kl = 1\n")
    refused("holds nothing to a baseline", SAMPLE, "--policy", uniform, "--baseline", baseline)
    record = json.loads((baseline / "run.json").read_text())
    other = {**record["ppl_definition"], "tokens_sha256": "0", "text_sha256": "0"}
    change_record(baseline, ppl_definition=other)
    refused("not measured on the same tokens (another text)", SAMPLE, "--baseline", baseline)


def test_what_is_refused(tmp_path: Path) -> None:
    refused("no run was given")
    refused("holds no run", tmp_path)
    going = write_run(tmp_path, "going", state="running")
    refused("is not finished", going)
    refused("is not finished", SAMPLE, "--baseline", going)
    refused("run of schema 7", write_run(tmp_path, "old", schema=7))
    policy = tmp_path / "policy.toml"
    policy.write_text("[limits]\nmax_klp999 = 1\n")
    refused(
        "line 2: unknown key 'max_klp999' in [limits]: did you mean", SAMPLE, "--policy", policy
    )
    refused("there is no policy", SAMPLE, "--policy", tmp_path / "none.toml")
    refused("go to the same file", SAMPLE, "--junit", tmp_path / "x", "--json", tmp_path / "x")
    deep = tmp_path / "new" / "x"
    refused("same file", SAMPLE, "--junit", deep, "--json", tmp_path / "new" / ".." / "new" / "x")
    refused("a file to write too", SAMPLE, "--junit", deep.parent, "--json", deep)
    assert not deep.parent.exists()
    refused("two documents", "--print-policy", "--print-schema")
    refused("is a directory", SAMPLE, "--junit", tmp_path)
    (tmp_path / "file").touch()
    refused("cannot be written", SAMPLE, "--junit", tmp_path / "file" / "x")
    assert not (tmp_path / "x").exists()


def text(part: Any) -> str:
    """What a component reads as."""
    if isinstance(part, str):
        return part
    if isinstance(part, list | tuple):
        return " ".join(text(child) for child in part if child is not None)
    if isinstance(part, dict):
        return text(part["text"])
    return text(getattr(part, "children", None) or getattr(part, "rows", None) or "")


def find_table(part: Any) -> list[Any]:
    """The rows of the table in a card."""
    shown = next(child for child in part.children if getattr(child, "id", "") == "policy-tried")
    assert isinstance(shown.children, Table)
    return list(shown.children.rows)


def test_the_card_says_what_the_command_says(tmp_path: Path) -> None:
    path = write_run(tmp_path, "plain")
    own = write_run(tmp_path, "own")
    (own / "policy.toml").write_text("[limits]\nmax_kl = 0.005\nmax_ppl_ratio = 1.01\n")
    store = Store(tmp_path)
    for run in (path, own):
        said = text(gate_card(store, store.summary(run.name)))
        told = json.loads(gate(run, "--json", "-").stdout)
        head = re.match(r"May it ship\? Every limit . (\w+)", " ".join(said.split()))
        assert head and head[1] == told["verdict"]
        ship = text(ship_head(store, store.summary(run.name)))
        answer = {"pass": "✓ May ship", "fail": "✕ May not ship"}[told["verdict"]]
        assert " ".join(ship.split()).startswith(f"{answer} :")
        rows = find_table(gate_card(store, store.summary(run.name)))
        words = [row[-1]["text"].split()[1] for row in rows]
        assert words == [limit["verdict"] for limit in told["limits"]]
    assert "by its own policy (policy.toml)" in said and "the run's own policy" in ship
    assert f"awqscope gate {own}" in said


def test_the_card_reads_the_tokens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    write_run(tmp_path, "plain")
    read, count = store_module.read_numbers, []
    monkeypatch.setattr(
        "awqscope.app.store.read_numbers", lambda *given: count.append(1) or read(*given)
    )
    store = Store(tmp_path)
    for _ in range(3):
        gate_card(store, store.summary("plain"))
    assert len(count) == 1


def test_a_card_for_what_cannot_be_judged(tmp_path: Path) -> None:
    path = write_run(tmp_path, "plain")
    (path / "policy.toml").write_text("[limits]\nmax_klp = 1\n")
    store = Store(tmp_path)
    assert "did you mean max_kl?" in text(gate_card(store, store.summary("plain")))
    (path / "policy.toml").unlink()
    shutil.move(path / "tokens.parquet", tmp_path / "elsewhere")
    assert "has no tokens.parquet" in text(gate_card(store, store.summary("plain")))
