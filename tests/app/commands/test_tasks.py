"""`awqscope tasks`: what it prints of finished results, and one line for what it cannot use; the
gate that follows."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.studies.tasks.answer import digest_widths
from awqscope.mixedprec.recipes.recipe import change_recipe, load_recipe, recipe_json
from tests.help.runs import write_comparison, write_run
from tests.help.tasks import keep_tasks, make_task, turn, write_results


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run, and beside it results of its models on two tasks."""
    for name, worse in (("surely", 60), ("hardly", 2)):
        scores = turn(400, worse, 2)
        write_results(tmp_path / "fp16" / "model", {name: scores["reference"]})
        write_results(tmp_path / "mixed", {name: scores["mixed"]})
    return write_run(tmp_path)


def read(run: Path, *more: str) -> tuple[int, str, str]:
    folders = [f"reference={run.parent / 'fp16'}", f"mixed={run.parent / 'mixed'}"]
    return call("tasks", run, "--results", folders[0], "--results", folders[1], *more)


def test_a_table_the_same_as_json_and_a_gate_that_fails(run: Path, tmp_path: Path) -> None:
    assert call("tasks", run)[2].endswith("was given no task: name some with --tasks\n")
    code, out, said = read(run)
    assert code == 0, said
    assert "The mixed model is surely worse on surely and not told apart from the 16-bit" in out
    assert "surely, acc" in out and "−14.50" in out
    code, out, _ = call("tasks", run, "--json")
    told = {row["task"]: row for row in json.loads(out)["tasks"]}
    assert code == 0 and told.keys() == {"surely", "hardly"}
    assert (told["surely"]["worse"], told["surely"]["better"]) == (60, 2)
    assert told["surely"]["p"] < 1e-9 and told["hardly"]["p_adjusted"] == 1
    policy = tmp_path / "p.toml"
    policy.write_text("[tasks]\nmax_drop = 0.05\n", encoding="utf-8")
    files = {name: tmp_path / f"gate.{name}" for name in ("junit", "markdown", "json")}
    options = [part for name, file in files.items() for part in (f"--{name}", file)]
    code, out, _ = call("gate", run, "--policy", policy, *options)
    assert code == 1 and "of 400 samples 60 worse and 2 better" in out
    verdict = json.loads(files["json"].read_text(encoding="utf-8"))
    assert {limit["name"]: limit["verdict"] for limit in verdict["limits"]} == {
        "tasks.hardly.max_drop": "pass",
        "tasks.surely.max_drop": "fail",
    }
    assert 'failures="1"' in files["junit"].read_text(encoding="utf-8")
    assert "❌ fail" in files["markdown"].read_text(encoding="utf-8")


def test_a_mixed_model_of_another_recipe_is_marked(run: Path) -> None:
    recipe = load_recipe(run / "recipe.json")
    task = make_task(**turn(20, 3, 1))
    stamp = {"widths": digest_widths(recipe.widths)}
    mixed = task.models["mixed"].changed(stamp=stamp)
    keep_tasks(run, task.changed(models={**task.models, "mixed": mixed}))
    said = "The mixed model on tiny is of another recipe than the run has now: run it again."
    assert said not in call("tasks", run)[1]
    assert json.loads(call("tasks", run, "--json")[1])["of_another_recipe"] == []
    low = change_recipe(recipe, dict.fromkeys(recipe.widths, 4))
    (run / "recipe.json").write_text(json.dumps(recipe_json(low)), encoding="utf-8")
    assert said in " ".join(call("tasks", run)[1].split())
    assert json.loads(call("tasks", run, "--json")[1])["of_another_recipe"] == ["tiny"]


def test_a_comparison_takes_results_of_its_candidate(tmp_path: Path) -> None:
    run = write_comparison(tmp_path)
    write_results(tmp_path / "a", {"tiny": [1.0, 0.0] * 20})
    folder = tmp_path / "a"
    code, out, said = call(
        "tasks", run, "--results", f"reference={folder}", "--results", f"candidate={folder}"
    )
    assert code == 0, said
    assert "The candidate model is not told apart from the 16-bit model on tiny" in out


def test_scores_that_do_not_belong_together_are_one_line(tmp_path: Path) -> None:
    run = write_comparison(tmp_path)
    write_results(tmp_path / "a", {"tiny": [1.0, 0.0] * 20})
    given = [f"{model}={tmp_path / 'a'}" for model in ("reference", "candidate")]
    assert call("tasks", run, "--results", given[0], "--results", given[1])[0] == 0
    kept = run / "studies" / "tasks.json"
    answer = json.loads(kept.read_text(encoding="utf-8"))
    text = json.dumps(answer)
    (task,) = answer["answer"]["tasks"]
    for model in task["models"].values():
        model["scores"] = {}
    assert text != json.dumps(answer)
    kept.write_text(json.dumps(answer), encoding="utf-8")
    code, _, said = call("tasks", run)
    assert code == 2 and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (["--results", "mixed"], "--results mixed names no folder: give it like mixed=./results"),
        (["--results", "mixed=a", "--results", "mixed=b"], "two folders are of mixed"),
        (["--results", "other=/tmp"], "has no model other: give results of reference, uniform"),
        (["--results", "mixed=/no/such"], "there is no directory /no/such"),
        (["--results", "mixed=a", "--limit", "3"], "--limit is of tasks that are run"),
        (["--results", "mixed=a", "--device", "cpu"], "--device is of tasks that are run"),
        (["--results", "mixed=a", "--batch-size", "9"], "--batch-size is of tasks that are run"),
        (["--limit", "3"], "--limit is of tasks that are run: name the tasks"),
        (["--model", "/no/such"], "--model is of tasks that are run: name the tasks"),
        (["--tasks", "tiny", "--model", "/no/such"], "there is no model directory"),
    ],
)
def test_one_line_for_what_cannot_be_used(run: Path, asked: list[str], wanted: str) -> None:
    code, out, said = call("tasks", run, *asked)
    assert (code, out) == (2, "")
    (line,) = said.strip().splitlines()
    assert line.startswith("awqscope: ") and wanted in line
