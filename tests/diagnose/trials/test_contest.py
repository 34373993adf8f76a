"""Scores read from a run, recipes measured side by side, and `awqscope recipe` over both."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from awqscope import InputError, load_recipe, read_scores, recipe_of, solve
from awqscope.app.cli import app
from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.diagnose.trials.race import judge_race, measure_kl
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from awqscope.mixedprec.recipes.emitters import EMITTERS


@pytest.fixture(scope="module")
def run(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    spec = RunSpec(
        model=str(make_model("llama", num_hidden_layers=3)),
        calib=str(text_file),
        valid=str(text_file),
        group_size=64,
        seq_len=48,
        windows=6,
        calib_windows=4,
        calib_seq_len=48,
        top_k=1,
        keep_fp16=("2.o",),
        verify_units=3,
        chunk_windows=5,
    )
    return run_pipeline(spec, tmp_path_factory.mktemp("runs") / "run", lambda *event: None)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["recipe", *map(str, arguments)])


def test_scores_are_what_the_run_wrote(run: RunDirectory) -> None:
    scores = read_scores(run.path)
    rows = {(row["unit"], row["bits"]): row for row in run.read_table("units").to_pylist()}
    headline = run.read().to_json()["headline"]
    assert scores.predict(scores.uniform).bytes == headline["bytes"]["uniform"]
    assert scores.predict(scores.uniform).recovered == 0
    kept = next(unit for unit in scores.units if unit.name == "2.o")
    assert [option.bits for option in kept.options] == [16]
    for unit in scores.units:
        for option in unit.options:
            row = rows[unit.name, option.bits]
            exact = row["exact_kl"]
            assert option.kl == (row["estimated_kl"] if exact is None else exact)
    own = load_recipe(run.path / "recipe.json")
    assert scores.predict(own.bits).bytes == checkpoint_bytes(run.checkpoint)


def test_split_scores_hold_the_same_weights(run: RunDirectory) -> None:
    whole, split = read_scores(run.path), read_scores(run.path, split_fused=True)
    assert len(split.units) == 3 * 7 and "0.self_attn.k_proj" in split.uniform
    assert (split.weights, split.fixed_bytes) == (whole.weights, whole.fixed_bytes)
    assert split.unit_bytes(split.uniform) == whole.unit_bytes(whole.uniform)


def test_recipes_measured_together_are_each_its_own_model(run: RunDirectory) -> None:
    """Against transformers' model with the effective weights put in by hand, KL spelt out."""
    spec = run.read_searched().spec
    inputs, scores = load_inputs(spec), read_scores(run.path)
    recipes = {
        "uniform": recipe_of(scores, scores.uniform, kind="test"),
        "late": recipe_of(scores, {**scores.uniform, "1.qkv": 8, "2.down": 16}, kind="test"),
        "early": recipe_of(scores, {**scores.uniform, "0.gate_up": 8}, kind="test"),
    }
    budget = 2 * 48 * 128 * 4 * 5
    found = measure_kl(inputs.model, inputs.windows, run.searches, recipes, budget)
    assert found["uniform"].mean() == pytest.approx(run.read_searched().measured.kl.uniform)
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32).eval()
        expected = whole(inputs.windows).logits[:, :-1].log_softmax(-1)
        for name, recipe in recipes.items():
            changed = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32).eval()
            for block in range(inputs.model.blocks):
                prefix = inputs.model.prefix(block)
                swappable = read_swappable(inputs.model, block, run.searches, (4, 8))
                for part, weight in swappable.weights(recipe.block_widths(prefix)).items():
                    changed.get_parameter(f"{prefix}.{part}").data = weight
            log_q = changed(inputs.windows).logits[:, :-1].log_softmax(-1)
            kl = (expected.exp() * (expected - log_q)).sum(-1).mean(1)
            assert found[name] == pytest.approx(kl.numpy(), rel=1e-3, abs=1e-7)
    results = judge_race(found, "late", seed=0)
    assert results["late"].behind.value == results["late"].behind.high == 0
    behind = (found["early"] - found["late"]).mean()
    assert results["early"].behind.value == pytest.approx(behind)


def test_a_recipe_for_a_budget_is_predicted_saved_and_written(
    run: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    result = call(run.path, "--target-bits", "5.5", "-o", out)
    assert result.exit_code == 0, result.output
    scores, recipe = read_scores(run.path), load_recipe(out)
    assert recipe.bits == solve(scores, target_bits=5.5).bits
    assert "bits per weight" in result.output and "No rival within the same bytes" in result.output
    rivals = {rival["name"]: rival for rival in recipe.provenance["rivals"]}
    assert {"this recipe", "weight error", "down only", "random 4"} <= set(rivals)
    assert rivals["this recipe"]["kl"] is None
    made = CliRunner().invoke(
        app, ["requantize", str(run.path), "--recipe", str(out), "--out", str(tmp_path / "c")]
    )
    assert made.exit_code == 0, made.output
    assert checkpoint_bytes(tmp_path / "c") == scores.predict(recipe.bits).bytes
    printed = json.loads(call(run.path, "--target-bits", 5.5, "--json").stdout)
    assert printed == json.loads(out.read_text())
    both = call(run.path, "--target-bits", 5.5, "--json", "-o", tmp_path / "again.json").stdout
    assert json.loads(both) == json.loads((tmp_path / "again.json").read_text()) == printed


def test_a_contest_is_measured_and_kept(run: RunDirectory) -> None:
    result = call(run.path, "--target-bits", 6, "--widths", "8,4", "--refine", "--verify")
    assert result.exit_code == 0, result.output
    kept = load_recipe(run.path / "races" / "target_bits-6-widths-4-8-refined.json")
    assert "gap" not in kept.provenance and kept.kind == "budget, refined"
    rivals = kept.provenance["rivals"]
    assert rivals[0]["name"] == "this recipe" and rivals[0]["kl"] is not None
    grouped = next(rival for rival in rivals if rival["name"] == "uniform, groups of 32")
    assert grouped["predicted_kl"] is None and grouped["kl"][0] > 0
    assert max(rival["bytes"] for rival in rivals) <= 6 * read_scores(run.path).weights / 8 + (
        read_scores(run.path).fixed_bytes
    )
    refined = kept.provenance["refined"]
    assert refined["kl"] <= refined["kl_before"] and refined["measured"] > 2
    assert refined["kl"] == pytest.approx(rivals[0]["kl"][0])


def test_a_run_that_cannot_keep_a_contest_is_told_before_it(
    run: RunDirectory, tmp_path: Path
) -> None:
    for path in run.path.iterdir():
        if path.name != "races":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "races").write_text("in the way")
    refused = call(tmp_path, "--target-bits", 6, "--verify", "--model", "/nowhere")
    assert refused.exit_code == 2 and "races cannot be written" in refused.output
    assert call(tmp_path, "--target-bits", 6).exit_code == 0


def test_damaged_scores_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    for path in run.path.iterdir():
        (tmp_path / path.name).symlink_to(path)
    own = json.loads((run.path / "recipe.json").read_text())
    own["units"][0]["unit"] = "9.qkv"
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "recipe.json").write_text(json.dumps(own))
    with pytest.raises(InputError, match=r"no scores of unit 9\.qkv"):
        read_scores(tmp_path)
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "recipe.json").symlink_to(run.path / "recipe.json")
    table = run.read_table("units")
    nan = pa.array([float("nan")] * len(table))
    table = table.set_column(table.column_names.index("estimated_kl"), "estimated_kl", nan)
    (tmp_path / "units.parquet").unlink()
    pq.write_table(table, tmp_path / "units.parquet")
    with pytest.raises(InputError, match="has no finite KL"):
        read_scores(tmp_path)


def test_split_recipes_are_for_engines_that_do_not_fuse(run: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "split.json"
    split = ("--target-bits", 5, "--split-fused")
    assert call(run.path, *split, "-o", out).exit_code == 0
    assert all(len(entry.linears) == 1 for entry in load_recipe(out).units)
    refused = CliRunner().invoke(
        app, ["requantize", str(run.path), "--recipe", str(out), "--out", str(tmp_path / "c")]
    )
    assert refused.exit_code == 2 and not (tmp_path / "c").exists()
    assert "splits the fused unit" in refused.output and "SGLang" in refused.output
    assert call(run.path, *split, "--emit", "llama.cpp").exit_code == 0


def test_dialects(run: RunDirectory, tmp_path: Path) -> None:
    listed = call(run.path, "--emit", "list").stdout
    assert all(name in listed for name in EMITTERS)
    result = call(run.path, "--emit", "llm-compressor", "-o", tmp_path / "recipe.yaml")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "recipe.yaml").read_text()
    assert "layers" in text
    assert call(run.path, "--emit", "llm-compressor", "-o", "-").stdout == text
    assert call(run.path, "--emit", "llm-compressor").stdout == text


def test_outputs_agree(run: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "new" / "recipe.json"
    budget = ("--target-bits", 5)
    printed = call(run.path, *budget, "--json", "-o", out).stdout
    assert out.read_text(encoding="utf-8") == printed == call(run.path, *budget, "-o", "-").stdout
    assert load_recipe(out).kind == "budget"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target-bits", "3"), "as small as 3.0 bits per weight"),
        (("--max-bytes", "1KB"), "as small as 1000 bytes"),
        (("--min-recovery", "1.5"), "no share"),
        (("--flagged", "--target-bits", "5"), "one budget"),
        (("--target-bits", "5", "--max-bytes", "1GB"), "one budget"),
        (("--refine",), "within a size"),
        (("--widths", "4,x", "--target-bits", "5"), "no list of widths"),
        (("--widths", "4,8"), "--widths is for a budget"),
        (("--widths", "4,5", "--target-bits", "5"), "no unit was scored at 5 bits"),
        (("--widths", "8,16", "--target-bits", "9"), "leave out 4 bits"),
        (("--target-bits", "inf"), "no budget"),
        (("--refine", "--min-recovery", "0.5"), "within a size"),
        (("--emit", "onnx"), "nothing emits 'onnx'"),
        (("--verify", "--model", "/nowhere"), "/nowhere"),
        (("--target-bits", "nan"), "nan bits per weight are no budget"),
        (("--target-bits", "5", "-o", "/"), "/ is a directory"),
        (("--target-bits", "5", "-o", f"{__file__}/x"), "cannot be written"),
    ],
)
def test_what_cannot_be_asked(run: RunDirectory, options: tuple[str, ...], said: str) -> None:
    result = call(run.path, *options)
    assert result.exit_code == 2
    assert said in result.output and len(result.output.strip().splitlines()) == 1


def test_runs_without_scores(run: RunDirectory, tmp_path: Path) -> None:
    assert "holds no run" in call(tmp_path, "--target-bits", 5).output
    record = run.read().to_json()
    record["stages"].pop("recipe")
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="has not scored its units: go on with it: awqscope run "):
        read_scores(tmp_path)


def test_runs_of_earlier_versions_say_what_they_lack(run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "old"
    shutil.copytree(run.path, path)
    (path / "linears.parquet").unlink()
    assert call(path, "--target-bits", 5).exit_code == 0
    result = call(path, "--target-bits", 5, "--split-fused")
    assert result.exit_code == 2
    assert "linears.parquet is missing: copy the whole run, or run it again" in result.stderr
    old = RunDirectory(path)
    units = old.read_table("units")
    old.write_arrow("units", units.filter(pc.field("bits") < 16))
    result = call(path, "--target-bits", 5)
    assert result.exit_code == 2
    assert "lacks 16 bits (an earlier version made it): run it again elsewhere" in result.stderr


def test_a_model_or_text_that_is_elsewhere(run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "moved"
    shutil.copytree(run.path, path)
    record, moved = RunDirectory(path).read_searched(), RunDirectory(path)
    model = record.spec.model
    moved.update(spec=record.spec.change(model="nowhere/at/all", valid="gone.txt"))
    result = call(path, "--verify")
    assert result.exit_code == 2
    assert f"give it with --model, or give the command in {record.directory}" in result.stderr
    result = call(path, "--verify", "--model", model)
    assert result.exit_code == 2
    assert f"no file gone.txt: give the command in {record.directory}" in result.stderr
