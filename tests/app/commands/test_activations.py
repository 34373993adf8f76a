"""`awqscope activations` on a small run: what it prints, its JSON, and its errors."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.studies.int8_inputs.answer import Activations
from tests.help.measured import write_measured_run


def test_it_measures_once_and_says_what_refuses(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    run = write_measured_run(tmp_path / "run", make_model("gpt_neox"), text_file)
    first = CliRunner().invoke(app, ["activations", str(run.path)])
    assert first.exit_code == 0, first.output
    assert "Block 1 refuses 4-bit weights." in first.stdout
    assert "int8 by token in every block costs KL" in first.stdout
    assert "int8 inputs: 100%" in first.stderr
    again = CliRunner().invoke(app, ["activations", str(run.path), "--json"])
    assert again.exit_code == 0 and "int8 inputs" not in again.stderr
    found = Activations.model_validate(json.loads(again.stdout))
    assert [each.method for each in found.methods] == ["int8"]
    assert [each.block for each in found.methods[0].blocks] == [0, 1]
    refused = CliRunner().invoke(app, ["activations", str(run.path), "--method", "int4"])
    assert refused.exit_code == 2
    assert refused.stderr == (
        "awqscope: --method int4 is not known: give one of int8, llm.int8, smoothquant\n"
    )
