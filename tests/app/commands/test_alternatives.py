"""`awqscope alternatives`: what it prints, and one line for what it cannot use."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.inputs.load import hash_tokens, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.alternatives.methods import NAMES
from tests.help.searched import write_searched_run

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def run(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    """A searched run of which the text is what its record says."""
    path = tmp_path_factory.mktemp("command") / "run"
    run = write_searched_run(path, make_model("llama"), text_file, changed={"1.down": 8})
    record = run.read_searched()
    run.update(spec=record.spec.change(windows=4, seq_len=64, calib_windows=4, calib_seq_len=64))
    inputs = load_inputs(run.read_searched().spec)
    measured, searched = map(hash_tokens, (inputs.windows, inputs.calib_windows))
    run.update(ppl_definition=record.ppl_definition.changed(tokens_sha256=measured))
    run.update(calibration=record.calibration.changed(tokens_sha256=searched))
    return run


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["alternatives", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_table_and_the_same_as_json(run: RunDirectory) -> None:
    code, out, said = call(run.path, "--only", "rtn", "--only", "mixed", "--by-block")
    assert code == 0, said
    assert "The run's uniform model costs a KL of" in out
    assert "RTN 4 bits in groups of 64" in out and "AWQ mixed by the recipe" in out
    assert "KL of each block alone in the 16-bit model, on 4 windows" in out
    code, out, said = call(run.path, "--only", "rtn", "--json")
    assert code == 0 and "measuring" not in said
    answer = json.loads(out)
    kept = json.loads((run.path / "studies" / "alternatives.json").read_text(encoding="utf-8"))
    assert kept["answer"] == answer
    rows = {row["name"]: row for row in answer["rows"]}
    assert rows.keys() == {"uniform", "mixed", "rtn"}
    assert rows["mixed"]["bits_per_weight"] > rows["uniform"]["bits_per_weight"]
    assert not (run.path / "studies" / "alternatives").exists()


def test_names_are_listed(run: RunDirectory) -> None:
    assert call(run.path, "--only", "list") == (0, "\n".join(NAMES) + "\n", "")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (["--only", "gptq"], "there is no alternative gptq: choose from uniform"),
        (["--add", "gptq"], "--add gptq names no checkpoint: give it like gptq=./checkpoint"),
        (["--add", "a=x", "--add", "a=y"], "two checkpoints are called a: give each --add another"),
        (["--add", "rtn=x"], "rtn is an alternative of its own"),
        (["--add", "gptq=/no/such"], "/no/such"),
        (["--only", "awq-g32", "--model", "/no/such"], "there is no model directory"),
    ],
)
def test_one_line_for_what_cannot_be_used(run: RunDirectory, asked: list[str], wanted: str) -> None:
    code, out, said = call(run.path, *asked)
    assert (code, out) == (2, "")
    (line,) = said.strip().splitlines()
    assert line.startswith("awqscope: ") and wanted in line


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    code, _, said = call(tmp_path)
    assert code == 2 and "holds no run" in said
