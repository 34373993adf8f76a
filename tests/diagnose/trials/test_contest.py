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
from pandas import Series
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from awqscope import (
    Grouped,
    InputError,
    change_recipe,
    load_recipe,
    read_scores,
    recipe_of,
    save_recipe,
    solve,
)
from awqscope.app.cli import app
from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.diagnose.trials.race import judge_race, measure_kl
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes
from awqscope.mixedprec.recipes.emitters import EMITTERS
from awqscope.mixedprec.scheme import FP16_BITS
from tests.help.contests import call, contest_spec

FINE = Grouped(4, 32)


@pytest.fixture(scope="module")
def run(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    spec = contest_spec(make_model, text_file)
    return run_pipeline(spec, tmp_path_factory.mktemp("runs") / "run", lambda *event: None)


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


def test_groups_are_searched_and_scored_once(run: RunDirectory) -> None:
    """Estimates against units measured alone, by whole models whose other units are at 16 bits."""
    asked = ("--options", "4x64,4x32,8", "--target-bits", 5.5, "--json")
    printed = json.loads(call(run.path, *asked).stdout)
    assert printed["provenance"]["widths"] == [4, "4x32", 8, 16]
    searches = sorted((run.searches / "g32").iterdir())
    assert [path.name for path in searches] == [f"block-{n:04d}.w4.safetensors" for n in range(3)]
    made = [path.stat().st_mtime_ns for path in (*searches, run.path / "groups.parquet")]
    assert json.loads(call(run.path, *asked).stdout) == printed
    assert made == [p.stat().st_mtime_ns for p in (*searches, run.path / "groups.parquet")]
    narrow = json.loads(call(run.path, "--options", "4,4x32", *asked[2:]).stdout)
    assert narrow["provenance"]["widths"] == [4, "4x32", 16]
    assert [u for u in narrow["units"] if "group_size" in u]
    scores = read_scores(run.path, groups=[FINE])
    plain = {unit.name: FP16_BITS for unit in scores.units}
    scored = {unit.name: unit for unit in scores.units if len(unit.options) > 1}
    recipes = {name: recipe_of(scores, {**plain, name: FINE}, kind="test") for name in scored}
    inputs = load_inputs(run.read_searched().spec)
    found = measure_kl(inputs.model, inputs.windows, run.searches, recipes, 2**30)
    exact, said = (
        Series({name: value(unit) for name, unit in scored.items()})
        for value in (
            lambda unit: found[unit.name].mean(),
            lambda unit: unit.option(FINE).kl,
        )
    )
    # The attention of a random model is what 280 tokens say least of.
    assert said.sum() == pytest.approx(exact.sum(), rel=0.2)
    assert said.rank().corr(exact.rank()) > 0.75
    rows = run.read_table("groups").to_pylist()
    assert len(rows) == 12 and all(row["estimated_kl_low"] <= row["estimated_kl"] for row in rows)
    kept = next(unit for unit in scores.units if unit.name == "2.o")
    assert [option.width for option in kept.options] == [16]
    with pytest.raises(InputError, match=r"no scores of units at 8x32: .* --options 4,8x32"):
        read_scores(run.path, groups=[Grouped(8, 32)])


def test_a_recipe_over_groups_is_raced_written_and_proved(
    run: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "fine.json"
    asked = ("--options", "4,4x32,8", "--target-bits", 5.3)
    assert call(run.path, *asked, "--verify", "-o", out).exit_code == 0
    recipe = load_recipe(out)
    assert FINE in recipe.widths.values()
    rivals = {rival["name"]: rival for rival in recipe.provenance["rivals"]}
    assert rivals["one size of groups"]["kl"][0] > rivals["this recipe"]["kl"][0] > 0
    races = load_recipe(run.path / "races" / "target_bits-5.3-widths-4-4x32-8.json")
    assert races == recipe
    command = ["requantize", run.path, "--recipe", out, "--out", tmp_path / "c", "--prove"]
    made = CliRunner().invoke(app, [*map(str, command), "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["proof"]["passed"]
    assert told["bytes"] == recipe.provenance["predicted"]["bytes"]
    assert told["proof"]["kl"] == pytest.approx(rivals["this recipe"]["kl"][0], rel=1e-3)
    card = (tmp_path / "c" / "README.md").read_text()
    assert "4x32 is 4 bits in groups of 32." in card and "| 4x32 bits |" in card


def test_groups_that_the_run_has_no_search_for(run: RunDirectory, tmp_path: Path) -> None:
    own = load_recipe(run.path / "recipe.json")
    save_recipe(tmp_path / "r.json", change_recipe(own, {"0.o": Grouped(4, 128)}))
    command = ["requantize", run.path, "--recipe", tmp_path / "r.json", "--out", tmp_path / "c"]
    refused = CliRunner().invoke(app, [*map(str, command)])
    assert refused.exit_code == 2 and not (tmp_path / "c").exists()
    assert "no search at 4 bits in groups of 128" in refused.output
    assert "--options 4,4x128" in refused.output
    # What has the run's own size is the run's own, however it is written.
    save_recipe(tmp_path / "r.json", change_recipe(own, {"0.o": Grouped(4, 64)}))
    assert CliRunner().invoke(app, [*map(str, command)]).exit_code == 0


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
        (("--options", "4,4x48", "--target-bits", "5"), "no list of widths"),
        (("--options", "4,3x32", "--target-bits", "5"), "no search at 3 bits"),
        (("--options", "4x32,8", "--target-bits", "5"), "leave out 4 bits"),
        (("--options", "4,4x32", "--target-bits", "5", "--split-fused"), "not scored in other"),
        (("--widths", "4,8"), "--options is for a budget"),
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
