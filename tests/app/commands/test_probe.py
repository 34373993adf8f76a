"""`awqscope probe`: what it prints and writes, and one line for what it cannot use."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from awqscope.app.cli import app
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.recipes.recipe import load_recipe
from tests.help.probed import keep_probe, make_probe
from tests.help.runs import write_comparison, write_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """The sample, its flagged block 5 probed before."""
    found = RunDirectory(write_run(tmp_path))
    keep_probe(found, make_probe(5))
    return found


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["probe", *map(str, arguments)])


def refuse(*arguments: object) -> str:
    """The one line with which it is refused."""
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    [line] = result.stderr.strip().splitlines()
    return line


def test_what_was_measured_is_read_without_the_model(run: RunDirectory) -> None:
    result = call(run.path)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "Most a byte: o-8 in words, 60.0% of the uniform model's KL given back" in said
    assert "✕ worse than nothing" in said
    assert "Not tried: groups of 128 (128 does not divide 192)." in said
    assert json.loads(call(run.path, 5, "--json").stdout) == [make_probe(5).to_json()]


def test_a_recipe_of_an_alternative(run: RunDirectory, tmp_path: Path) -> None:
    result = call(run.path, "--apply", "o-8")
    assert result.exit_code == 0, result.output
    made = run.path / "recipes" / "probe-5-o-8.json"
    assert load_recipe(made).bits["5.o"] == 8 and load_recipe(made).bits["5.qkv"] == 4
    assert f"awqscope requantize {run.path} --recipe {made} --out" in result.stdout
    out = tmp_path / "mine.json"
    assert json.loads(call(run.path, 5, "--apply", "o-8", "-o", out, "--json").stdout)
    assert load_recipe(out) == load_recipe(made)
    assert call(run.path, "--apply", "o-8", "-o", "-").stdout == made.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ((9,), "the model has no block 9: give one from 0 to 7"),
        (("--windows", 1), "give 2 to"),
        (("--windows", 10**6), "was not measured on 1000000 windows"),
        (("--calib-also", "none.txt"), "there is no file none.txt"),
        (("--apply", "rtn"), "no recipe holds rtn: it is a change of the run: no option"),
        (("--apply", "o-9"), "block 5 has no alternative 'o-9'"),
        (("-o", "x.json"), "-o is where --apply writes"),
        (("--apply", "o-8", "-o", "-", "--json"), "--json and -o - both print"),
        (("--apply", "o-8", "-o", "/"), "/ is a directory"),
        ((3, "--model", "/no/such"), "there is no model directory"),
    ],
)
def test_bad_input(run: RunDirectory, asked: tuple[object, ...], wanted: str) -> None:
    assert wanted in refuse(run.path, *asked)


def test_a_comparison_has_nothing_to_probe(tmp_path: Path) -> None:
    assert "is a comparison" in refuse(write_comparison(tmp_path))
