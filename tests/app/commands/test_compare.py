"""`awqscope compare` of several candidates: a run each, and one table over all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.naming import default_outs
from awqscope.diagnose.runs.record import read_record
from awqscope.diagnose.stages import comparison
from awqscope.mixedprec.errors import InputError
from tests.help.runs import write_run
from tests.mixedprec.foreign.test_candidate import change_tensors


def ask(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_each_candidate_is_a_run_and_the_best_stands_first(
    make_model: Callable[..., Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A candidate that is no model keeps the others from nothing, and the reference is opened
    once."""
    opened = []
    open_model = comparison.open_model

    def count(name: str, **how: bool) -> object:
        opened.append(name)
        return open_model(name, **how)

    monkeypatch.setattr(comparison, "open_model", count)
    reference = make_model("llama", num_hidden_layers=1)
    changed = Path(shutil.copytree(reference, tmp_path / "changed"))
    change_tensors(changed, lambda name, tensor: tensor * 1.2 if "down_proj" in name else tensor)
    same = Path(shutil.copytree(reference, tmp_path / "same"))
    absent = tmp_path / "absent"
    options = ["--valid", text_file, "--seq-len", 32, "--windows", 8, "--out", tmp_path / "out"]
    asked = ["compare", reference, changed, absent, same, *options]
    code, printed, said = ask(*asked, "--json")
    assert code == 2, said
    assert [line for line in said.splitlines() if "absent" in line and "→" not in line]
    assert opened == [str(reference)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["changed", "same"]
    table = json.loads(printed)
    assert table["baseline"] == "same"
    assert [one["name"] for one in table["models"]] == ["same", "changed"]
    for one in table["models"]:
        path = tmp_path / "out" / one["name"] / "run.json"
        record = read_record(json.loads(path.read_text(encoding="utf-8")), path)
        headline = record.measured
        assert one["kl"]["value"] == pytest.approx(headline.kl.quantized, rel=1e-4, abs=1e-9)
        assert one["bytes"] == headline.bytes.quantized
        # Nothing is quantized here.
        assert one["bits_per_weight"] == pytest.approx(16)
    first, second = (one["kl"]["value"] for one in table["models"])
    assert table["models"][1]["difference"]["kl"]["value"] == pytest.approx(second - first)
    # Again, it goes on where it was, which is at the end, and prints tables.
    code, printed, said = ask(*(part for part in asked if part != absent))
    assert code == 0, said
    assert printed.index("same") < printed.index("changed")
    assert "The other surely loses more." in printed and "surely worse" in printed


def test_a_run_is_not_begun_in_another(tmp_path: Path) -> None:
    run = write_run(tmp_path, "theirs")
    for plan in ((), ("--plan",)):
        code, _, said = ask("compare", "m", "a", "b", "--valid", __file__, "--out", run, *plan)
        assert code == 2 and f"a is in the run {run}: choose another --out" in said
    with pytest.raises(InputError, match="is in the run"):
        RunDirectory(run / "deep" / "er").check_free()
    assert sorted(path.name for path in run.iterdir()) == sorted(
        path.name for path in write_run(tmp_path, "other").iterdir()
    )


def test_what_is_given_twice_or_has_no_name_of_its_own_is_refused() -> None:
    code, _, said = ask("compare", "m", "a", "b", "a")
    assert code == 2 and said.strip() == "awqscope: a is given twice: give each candidate once"
    assert default_outs(["x/checkpoint", "y/checkpoint"], Path("o")) == {
        Path("o/x-checkpoint"): "x/checkpoint",
        Path("o/y-checkpoint"): "y/checkpoint",
    }
    assert default_outs(["org/a", "org/b.gguf"]) == {
        Path("reports/a"): "org/a",
        Path("reports/b.gguf"): "org/b.gguf",
    }
    with pytest.raises(InputError, match="one run directory"):
        default_outs(["a b", "a-b"])
