"""`awqscope explain`: what it prints and writes, and one line for what it cannot use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.explain.explanation import SCHEMA
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.searched import write_searched_run

MakeModel = Callable[..., Path]
ASK = ["--prompt", "the slow reading", "--tokens", "4"]


@pytest.fixture(scope="module")
def run(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    return write_searched_run(
        tmp_path_factory.mktemp("command") / "run", make_model("llama"), text_file
    )


def refuse(arguments: list[str]) -> str:
    """The one line with which it is refused."""
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("awqscope: ")
    return lines[0]


def test_one_prompt(run: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, ["explain", str(run.path), *ASK, "--json", "-o", str(out)])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads(out.read_text(encoding="utf-8"))
    assert (printed["schema"], printed["tokens"], printed["run"]) == (SCHEMA, 4, "run")
    (entry,) = printed["prompts"]
    assert entry["prompt"] == "the slow reading"
    assert len(entry["reference"]["tokens"]) == 4
    lines = result.stderr.splitlines()
    assert lines[0].startswith("decoding: ")
    assert not any("read again" in line for line in lines)


def test_a_file_of_prompts_with_little_memory(run: RunDirectory, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "--help"}\n{"prompt": "Line 3:"}\n')
    asked = ["--prompts", str(prompts), "--tokens", "3", "--max-memory", "1MB"]
    result = CliRunner().invoke(app, ["explain", str(run.path), *asked])
    assert result.exit_code == 0, result.output
    assert "its weights are read again for every token" in result.stderr
    assert "parts after" in result.stdout
    assert "prompt 2" in result.stdout
    assert "--help  (" in result.stdout


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ([], "give --prompt or --prompts"),
        ([*ASK, "--prompts", "x.txt"], "give --prompt or --prompts"),
        (["--prompt", " "], "a prompt is empty"),
        (["--prompts", "none.txt"], "none.txt cannot be read"),
        ([*ASK, "--tokens", "0"], "give at least 1"),
        ([*ASK, "--tokens", "126"], "and --tokens 126 are more than the model's 128 positions"),
        ([*ASK, "--model", "/no/such"], "there is no model directory"),
        ([*ASK, "-o", f"{__file__}/x.json"], "x.json cannot be written"),
        ([*ASK, "-o", "/"], "/ is a directory: give a file, or - for stdout"),
        ([*ASK, "--max-memory", "lots"], "give it like 8GiB"),
    ],
)
def test_bad_input(run: RunDirectory, asked: list[str], wanted: str) -> None:
    assert wanted in refuse([str(run.path), *asked])


def test_runs_that_cannot_be_explained(
    run: RunDirectory, make_model: MakeModel, tmp_path: Path
) -> None:
    assert "holds no run" in refuse([str(tmp_path), *ASK])
    other = make_model("llama", dtype=torch.bfloat16)
    assert "is not the model of" in refuse([str(run.path), *ASK, "--model", str(other)])
    for stage, name in (("search", "AWQ search"), ("sweep", "sweep")):
        copy = RunDirectory(tmp_path / stage)
        shutil.copytree(run.path, copy.path)
        copy.mark(stage, "running")
        assert f"has not finished its {name}" in refuse([str(copy.path), *ASK])
    bare = tmp_path / "bare"
    shutil.copytree(run.path, bare)
    (bare / "awq" / "block-0001.w8.safetensors").unlink()
    assert "lacks the AWQ search of block 1 at 8 bits" in refuse([str(bare), *ASK])


def test_a_recipe_of_other_widths(run: RunDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    recipe = json.loads((copy / "recipe.json").read_text())
    recipe["units"][0]["bits"] = 6
    (copy / "recipe.json").write_text(json.dumps(recipe))
    assert "holds no search at 6 bits" in refuse([str(copy), *ASK])


def test_a_run_without_a_recipe_yet(run: RunDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    (copy / "recipe.json").unlink()
    result = CliRunner().invoke(app, ["explain", str(copy), *ASK])
    assert result.exit_code == 0, result.output
    assert "The run has no recipe yet." in result.stdout
