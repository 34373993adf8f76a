"""Studies that were answered before: read at once, without the run's model and without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.inputs.corpora import load_corpus
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.alternatives import asked as alternatives
from awqscope.diagnose.studies.alternatives.methods import METHODS
from awqscope.diagnose.studies.calibration.asked import Asked
from awqscope.diagnose.studies.causes.answer import study_of
from awqscope.diagnose.studies.int8_inputs.asked import ask
from awqscope.diagnose.studies.study import Study, read_recipe_widths
from awqscope.mixedprec.recipes.recipe import change_recipe, load_recipe, recipe_json
from tests.help.alternatives import make_answer, make_row
from tests.help.calibrated import make_advice
from tests.help.caused import make_answer as make_causes
from tests.help.int8 import make_activations
from tests.help.probed import keep_probe, make_probe
from tests.help.root import ROOT
from tests.help.runs import write_run

# Runs each command line of argv[1], and tells how it ended and whether torch was imported.
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from awqscope.app.cli import app
for line in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, line)
    heavy = sorted({"torch", "transformers", "datasets"} & sys.modules.keys())
    print(json.dumps([result.exit_code, result.stdout, result.stderr, heavy]))
"""
STUDIES = ("why", "probe", "calibrate", "activations", "alternatives")


def keep(study: Study, answer: dict[str, Any]) -> None:
    with study.hold():
        study.keep(answer)


def keep_alternatives(run: RunDirectory, *names: str, **changes: Any) -> None:
    """An answer with rows of these methods as they would be made today."""
    spec = run.read_searched().spec
    methods = {method.name: method for method in METHODS}
    rows = [
        make_row(name, 4.25, 0.2, stamp=alternatives.stamp_method(methods[name], spec, {}))
        for name in names
    ]
    study = alternatives.study_of(run, run.read_searched())
    keep(study, make_answer(rows, **changes).to_json())


def call(*lines: list[str]) -> list[tuple[int, str, str]]:
    """How each command line ends, in a process of their own that must not need torch."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [heavy for *_, heavy in found] == [[]] * len(lines)
    return [(code, out, said) for code, out, said, _ in found]


def test_answers_and_refusals_need_no_torch(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    text = tmp_path / "code.txt"
    text.write_text("a text")
    keep(study_of(run, 5, None), make_causes())
    keep_probe(run, make_probe(5))
    also = Asked(calib_also=(str(text),))
    keep(also.study(run, {str(text): load_corpus(str(text)).hash}), make_advice().to_json())
    keep(ask(run, ["int8"], None), make_activations().to_json())
    keep_alternatives(run, "uniform", "rtn", "nf4")
    name = str(run.path)
    answers = call(
        ["why", name, "5", "--json"],
        ["probe", name, "--json"],
        ["probe", name, "5", "--apply", "o-8"],
        ["calibrate", name, "--calib-also", str(text), "--json"],
        ["activations", name, "--json"],
        ["alternatives", name, "--only", "rtn", "--json"],
        ["alternatives", name, "--only", "nf4"],
    )
    assert [code for code, _, _ in answers] == [0] * len(answers), answers
    kept = [json.loads(answers[number][1]) for number in (0, 3, 4)]
    assert kept == [make_causes(), make_advice().to_json(), make_activations().to_json()]
    assert json.loads(answers[5][1])["rows"][0]["name"] == "uniform"
    other = "fast" if run.read_searched().spec.is_exact else "exact"
    nowhere = str(tmp_path / "nothing")
    refusals = call(
        *([study, nowhere, *(["5"] if study == "why" else [])] for study in STUDIES),
        ["why", name, "8"],
        ["probe", name, "8"],
        ["calibrate", name, "--calib-also", str(text), "--search", other],
        ["activations", name, "--windows", "0"],
        ["alternatives", name, "--add", "rtn=x"],
        ["alternatives", name, "--only", "gptq"],
    )
    for code, out, said in refusals:
        assert (code, out, len(said.splitlines())) == (2, "", 1), said
    assert all("holds no run" in said for _, _, said in refusals[: len(STUDIES)])


def test_alternatives_are_measured_again_where_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(write_run(tmp_path))
    missing = {method.name: "left out" for method in METHODS} | {"gguf-q4_k_m": "no xllamacpp"}
    keep_alternatives(run, "uniform", "rtn", "nf4", left_out=missing)
    found = alternatives.find_kept(run, only=["rtn", "nf4"])
    assert found is not None and found.find("nf4") is not None
    assert alternatives.find_kept(run, only=["rtn"], by_block=True) is None
    assert alternatives.find_kept(run, only=["awq-g32"]) is None
    # gguf is installed: what was left out for want of it can be made.
    assert alternatives.find_kept(run) is None
    there = alternatives.version
    monkeypatch.setattr(alternatives, "version", lambda name: f"{there(name)}.changed")
    assert alternatives.find_kept(run, only=["nf4"]) is None
    assert alternatives.find_kept(run, only=["rtn"]) is not None


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("why", "one with other --windows takes its place"),
        ("probe", "one to other options takes its place"),
        ("calibrate", "until other options are asked for"),
        ("activations", "on another number of windows it gives way"),
    ],
)
def test_the_help_says_what_a_further_question_does(study: str, said: str) -> None:
    shown = CliRunner().invoke(app, [study, "--help"]).stdout
    assert said in " ".join(shown.replace("│", " ").split())


def test_alternatives_of_an_earlier_recipe_are_not_shown(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    record = run.read_searched()
    method = next(method for method in METHODS if method.name == "mixed")
    widths = read_recipe_widths(run, record)
    made = {"scheme": str(record.spec.low), "search": record.spec.search}
    rows = [
        make_row("uniform", 4.25, 0.2, stamp=made),
        make_row("mixed", 4.4, 0.1, stamp=alternatives.stamp_method(method, record.spec, widths)),
    ]
    study = alternatives.study_of(run, record)
    keep(study, make_answer(rows).to_json())
    found = alternatives.find_kept(run, only=["uniform"])
    assert found is not None and found.find("mixed") is not None
    assert alternatives.find_kept(run, only=["mixed"]) == found
    recipe = load_recipe(run.path / "recipe.json")
    changed = change_recipe(recipe, dict.fromkeys(recipe.widths, record.spec.bits))
    (run.path / "recipe.json").write_text(json.dumps(recipe_json(changed)), encoding="utf-8")
    assert alternatives.find_kept(run, only=["mixed"]) is None
    found = alternatives.find_kept(run, only=["uniform"])
    assert found is not None and found.find("mixed") is None
    assert found.left_out["mixed"] == "the run's recipe has changed since"


def test_a_recipe_that_raises_units_since_is_measured(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path))
    names = [method.name for method in METHODS if method.name != "mixed"]
    keep_alternatives(run, *names, left_out={"mixed": "the run's recipe raises no unit"})
    assert alternatives.find_kept(run) is None
    (run.path / "recipe.json").unlink()
    assert alternatives.find_kept(run) is not None
