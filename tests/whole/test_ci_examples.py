"""The examples for CI servers: they parse, their commands are ours, and their results are kept."""

import shlex
from typing import Any

import pytest
import typer
import yaml

from awqscope.app.cli import app
from awqscope.diagnose.gate.policy import load_policy
from tests.help.root import ROOT

FOLDER = ROOT / "examples" / "ci"
GITHUB = yaml.safe_load((FOLDER / "github.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((FOLDER / "gitlab.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = GITHUB["jobs"]["gate"]["steps"]
SCRIPTS = {
    "github": [step["run"] for step in STEPS if "run" in step],
    "gitlab": GITLAB["gate"]["script"],
}


def parse(script: str) -> dict[str, Any]:
    """The parameters of an awqscope command line, parsed by the real one; it is not carried out."""
    name, *arguments = shlex.split(script.replace("\\\n", " "))[1:]
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return {"command": name, **command.make_context(name, arguments).params}


def commands(server: str) -> list[dict[str, Any]]:
    return [parse(script) for script in SCRIPTS[server] if script.startswith("awqscope ")]


@pytest.mark.parametrize("server", SCRIPTS)
def test_commands_are_real_and_fit_together(server: str) -> None:
    run, gate = commands(server)
    assert (run["command"], gate["command"]) == ("run", "gate")
    assert run["out"] == gate["path"]
    assert run["valid"] == ["texts/prose.jsonl", "texts/code.jsonl"]
    assert gate["baseline"] is not None
    assert load_policy(FOLDER / gate["policy"]).has_drift


def test_a_command_line_that_is_not_ours_is_found_out() -> None:
    with pytest.raises(Exception, match="--policies"):
        parse("awqscope gate RUN --policies x")


def test_github_shows_and_keeps_the_verdict() -> None:
    _, gate = commands("github")
    names = [step.get("name", "") for step in STEPS]
    summary, kept = STEPS[names.index("Summary")], STEPS[names.index("Keep the verdict")]
    assert f'cat {gate["markdown"]} >> "$GITHUB_STEP_SUMMARY"' in summary["run"]
    files = {str(gate["junit"]), str(gate["markdown"]), str(gate["json_file"])}
    assert set(kept["with"]["path"].split()) == files
    # Both also when the gate fails, which ends what follows.
    for step in (summary, kept):
        assert "!cancelled()" in step["if"]
    assert "if" not in STEPS[names.index("Keep the checkpoint")]
    assert names.index("Keep the checkpoint") > names.index("Gate")
    # What a caller types must not become part of a script.
    assert not any("${{" in step["run"] for step in STEPS if "run" in step)


def test_gitlab_keeps_the_verdict() -> None:
    _, gate = commands("gitlab")
    artifacts = GITLAB["gate"]["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["reports"]["junit"] == str(gate["junit"])
    assert {str(gate["markdown"]), str(gate["json_file"])} <= set(artifacts["paths"])
