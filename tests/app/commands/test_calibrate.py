"""`awqscope calibrate` on a tiny run: what it prints, plans and refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.words.studies.calibration import write_advice
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from tests.help.calibrated import write_calibrated_run

FEW = ["--counts", "2,4", "--draws", "0"]


@pytest.fixture(scope="module")
def run(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    text = shutil.copyfile(text_file, folder / "text.txt")
    return write_calibrated_run(folder / "run", make_model("llama"), text, text)


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)], env={"COLUMNS": "200"})


def test_what_it_prints_follows_from_its_json(run: Path) -> None:
    result = call(run, *FEW, "--json")
    assert result.exit_code == 0, result.output
    advice = CalibrationAdvice.model_validate_json(result.stdout)
    kept = json.loads((run / "studies" / "calibrate.json").read_text(encoding="utf-8"))
    assert kept["answer"] == json.loads(result.stdout)
    assert "4 searches of 64 to 128 tokens, 5 models measured on 6 windows: about" in result.stderr
    shown = call(run, *FEW)
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.stdout.split())
    assert all(sentence in said for sentence in write_advice(advice))
    # The answer was there: nothing is planned.
    assert "searches of" not in shown.stderr


def test_a_plan_searches_nothing(run: Path, tmp_path: Path) -> None:
    fresh = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("studies"))
    before = sorted(fresh.rglob("*"))
    result = call(fresh, "--counts", "2,6", "--draws", "1", "--plan")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("5 searches of 64 to 256 tokens, 6 models measured on 6")
    told = json.loads(call(fresh, "--counts", "2,6", "--draws", "1", "--plan", "--json").stdout)
    assert (told["searches"], told["tokens"], told["models"]) == (5, [64, 256], 6)
    assert sorted(fresh.rglob("*")) == before


def test_a_kept_answer_plans_nothing(run: Path) -> None:
    assert call(run, *FEW).exit_code == 0
    assert "the answer is kept" in call(run, *FEW, "--plan").stdout
    told = json.loads(call(run, *FEW, "--plan", "--json").stdout)
    assert (told["searches"], told["models"], told["seconds"]) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--counts", "8;16"), "is no list of counts"),
        (("--draws", "99"), "--draws 99 is out of range"),
        (("--search", "slow"), "--search slow is not known: give fast or exact"),
        (("--calib-also", "nowhere.txt"), "there is no file nowhere.txt"),
        (("--device", "tpu"), "'tpu' is not supported"),
    ],
)
def test_what_is_refused(run: Path, options: tuple[str, ...], said: str) -> None:
    result = call(run, *options)
    assert result.exit_code == 2
    assert said in result.stderr and len(result.stderr.splitlines()) == 1
